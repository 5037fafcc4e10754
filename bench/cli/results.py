"""What came out: how runs stand, the pages that tell of them, a trained model on other images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Group
from rich.markup import escape

from bench.cli.common import (
    DATA,
    REPORTS,
    RESULTS,
    Data,
    Methods,
    Reports,
    Results,
    coloured,
    console,
    find_run,
    table,
)
from bench.cli.leaderboard import tell, write_board
from bench.errors import BenchError, did_you_mean, printable

if TYPE_CHECKING:
    from bench.records import Grid
    from bench.records import Results as AllRuns
    from bench.stale import Now

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE]...", help="Recipes that were run, by file or name; default: all."),
]


def status(
    recipes: Names = None, methods: Methods = None, results: Results = RESULTS, data: Data = DATA
) -> None:
    """Count what is done, running, queued on a cluster and failed; of named recipes, show every cell.

    What is done is held against the data and, by the files named, the methods of yours that are here now:
    where these changed since, it is stale.

    [bold]Examples[/]

    \b
    python run_bench.py status
    python run_bench.py status quick
    """
    from bench import records
    from bench.launch import queue
    from bench.rundir import Status
    from bench.search.outcome import phases

    statuses, runs = get_args(Status), records.Results(results, _now(data, methods))
    try:
        jobs = queue.jobs(results)
    except BenchError as error:  # what the run directories tell is true without it
        jobs = {}
        console().print(f"[yellow]{escape(str(error))}[/]", soft_wrap=True)
    counts = table("Recipes", "recipe", "cells", *statuses, numbers=("cells", *statuses))
    details = []
    for name, grid in _chosen(recipes, runs).items():
        known = queue.with_queue(runs.states(cell for _, cell in grid.cells), jobs)
        seen = Counter[str](state.status for state in known.values())
        counts.add_row(escape(name), str(len(known)), *(str(seen[s] or "") for s in statuses))
        shown = table(name, "state", "run", "label", "")
        for label, cell in grid.cells:
            state = known[cell.run_id]
            if recipes or state.status in ("running", "stale", "failed", "unreadable"):
                reason = escape(state.reason or "")
                shown.add_row(coloured(state.status), cell.run_id, escape(label), reason)
        if shown.rows:
            details.append(shown)
    console().print(Group(counts, *details))
    for name, grid in _chosen(recipes, runs).items():
        if grid.search:
            told = phases(grid.search, {cell.run_id: cell for _, cell in grid.cells}, runs)
            console().print(escape(f"{name}: {told}"), soft_wrap=True, highlight=False)
    tell(runs.conflicts)


def report(
    recipes: Names = None,
    methods: Methods = None,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    data: Data = DATA,
) -> None:
    """Write the leaderboard, its run pages and those of all recipes; or only of recipes that are named.

    What is stale, as `status` tells, is in no table.

    [bold]Examples[/]

    \b
    python run_bench.py report
    python run_bench.py report quick --reports pages
    """
    from bench import records

    runs = records.Results(results, _now(data, methods))
    if not recipes:
        write_board(runs, reports)
    for name in _chosen(recipes, runs) if recipes else runs.grids:
        write_report(name, runs, reports)
    tell(runs.conflicts)


def _now(data: Path, methods: list[Path] | None) -> Now:
    """Return the data that are here, and the code of methods files that are named."""
    from bench.stale import Now

    if not methods:
        return Now(data)
    from bench import registry

    registry.load_files(methods)
    return Now(data, registry.sources())


def write_report(name: str, runs: AllRuns, reports: Path) -> None:
    """Render one recipe's pages and say where they are."""
    from bench.report import render_recipe

    for path in render_recipe(runs, name, reports):
        console().print(f"report  {escape(str(path))}", soft_wrap=True, highlight=False)


def _chosen(names: Iterable[str] | None, runs: AllRuns) -> Mapping[str, Grid]:
    """Return the grids of the named recipes, or of all."""
    known = runs.grids
    if not known:
        raise BenchError(f"{runs.root / 'grids'}: no recipe was run yet; start with `run RECIPE`")
    chosen = {}
    for text in names or known:
        name = Path(text).name.removesuffix(".yaml")
        if name not in known:
            hint = f"; `run {text}` runs it" if Path(text).is_file() else did_you_mean(name, known)
            raise BenchError(f"recipe {name!r} was not run with {runs.root}{hint}")
        chosen[name] = known[name]
    return chosen


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's name, its last ten characters, or its weights file.")
    ],
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Images in one folder per class.")
    ] = None,
    methods: Methods = None,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Score a trained model on its test set, or on any folder of images by class.

    [bold]Examples[/]

    \b
    python run_bench.py evaluate 0123456789
    python run_bench.py evaluate results/runs/RUN/weights.safetensors --folder data/my_images
    """
    from bench.data.folder import list_images, passed_over
    from bench.registry import load_files
    from bench.rundir import RunDir
    from bench.train.evaluate import evaluate_run

    load_files(methods or ())
    if model.endswith(".safetensors"):
        if not Path(model).is_file():
            raise BenchError(f"{model}: no such weights file")
        home = Path(model).absolute().parent
        run = RunDir(home.parent.parent, home.name)
    else:
        run = find_run(results, model).directory
    if not run.weights.exists():
        raise BenchError(f"{run.run_id}: its weights are not here; `rerun {run.run_id}` makes them again")
    metrics = evaluate_run(run, data, folder)
    for line in passed_over(list_images(folder).passed_over) if folder else ():
        console().print(f"[yellow]{escape(printable(line))}[/]", soft_wrap=True, highlight=False)
    shown = table(run.run_id, "metric", "value", numbers=("value",))
    for key, value in metrics.items():
        if not isinstance(value, list | dict):
            shown.add_row(key, "n/a" if value is None else f"{value:.2f}")
    console().print(shown)


def export(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Other results folders whose runs are to be merged too."),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write finished runs into results/records, the compact text that git keeps.

    A run that is there stays as it is; two unlike records of one run are refused, and nothing is written.

    [bold]Examples[/]

    \b
    python run_bench.py export
    python run_bench.py export /mnt/other_machine/results
    """
    from bench import ledger
    from bench.records import results_folder

    done = ledger.export(results_folder(results), map(results_folder, sources or ()))
    tell(done.left_out, "left out: ")
    for path in done.files:
        console().print(f"ledger  {escape(str(path))}", soft_wrap=True, highlight=False)
    console().print(f"{done.lines} runs, {done.new} of them new or fuller", highlight=False)


def clean(
    results: Results = RESULTS,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Only runs that ended before.")
    ] = 0,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it they are only shown.")] = False,
) -> None:
    """Delete the checkpoints of finished runs, which nothing needs any more.

    [bold]Examples[/]

    \b
    python run_bench.py clean
    python run_bench.py clean --older-than 7 --apply
    """
    from bench.rundir import RunDir

    freed, before = 0, time.time() - older_than * 86400
    for path in sorted(results.glob("runs/*/checkpoint.pt")):
        run = RunDir(results, path.parent.name)
        if run.look()[0].status == "done" and run.record.stat().st_mtime <= before:
            size = path.stat().st_size
            freed += size
            console().print(f"{size / 1e6:9.1f} MB  {escape(str(path))}", soft_wrap=True, highlight=False)
            if apply:
                path.unlink()
    told = "deleted" if apply else "in all; delete them with --apply"
    console().print(f"{freed / 1e6:9.1f} MB  {told}", highlight=False)
