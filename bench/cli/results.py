"""The commands on results: `status`, `report`, `evaluate`, `export` and `clean`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.markup import escape

from bench.cli.common import (
    DATA,
    REPORTS,
    RESULTS,
    SHORT,
    AsJson,
    Data,
    Methods,
    Reports,
    Results,
    Wide,
    coloured,
    console,
    print_line,
    show,
    table,
)
from bench.cli.grids import print_search
from bench.cli.leaderboard import warn, write_board
from bench.errors import BenchError, did_you_mean, printable

if TYPE_CHECKING:
    from bench.cli.tables import FittingTable
    from bench.gridfile import Grid
    from bench.records import Results as AllRuns
    from bench.rundir import State
    from bench.stale import Now

#: States of runs that are shown of all recipes.
ATTENTION = ("running", "stale", "failed", "unreadable")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE]...", help="Files or names of recipes that were run; default: all."),
]


def status(
    recipes: Names = None,
    methods: Methods = None,
    wide: Wide = False,
    as_json: AsJson = False,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Count the runs of each recipe by their state; of recipes that are named, show every run.

    Without names only runs that need attention are shown. A finished run is stale if its data, or the code
    of your own methods, changed since.

    [bold]Examples[/]

    \b
    python run_bench.py status
    python run_bench.py status quick
    python run_bench.py status quick --wide      # whole names of the runs
    """
    from bench import records
    from bench.launch import queue
    from bench.rundir import Status

    statuses, runs = get_args(Status), records.Results(results, _now(data, methods))
    try:
        jobs = queue.queued(results)
    except BenchError as error:  # states are known without Slurm
        jobs = {}
        print(f"warning: {error}", file=sys.stderr)
    known = {
        name: queue.with_queue(runs.states(cell for _, cell in grid.cells), jobs)
        for name, grid in _chosen(recipes, runs).items()
    }
    if as_json:
        rows = [row for name in known for row in _rows(name, runs.grids[name], known[name])]
        print(json.dumps(rows, indent=1))
        return
    counts = table("Recipes", "recipe", "cells", *statuses, numbers=("cells", *statuses))
    details = []
    for name, states in known.items():
        seen = Counter[str](state.status for state in states.values())
        counts.add_row(escape(name), str(len(states)), *(str(seen[s] or "") for s in statuses))
        cells = _rows(name, runs.grids[name], states)
        rows = [r for r in cells if recipes or r["status"] in ATTENTION or r["run_id"] in runs.attempts]
        if rows:
            several_splits = len({cell["split_seed"] for cell in cells}) > 1
            details.append(_states(name, rows, wide, several_splits))
    for shown in (counts, *details):
        show(shown, wide)
    for name in known:
        grid = runs.grids[name]
        if grid.search:
            print_search(grid.search, [cell for _, cell in grid.cells], runs, f"{name}: ")
    warn(runs.conflicts)


def _rows(name: str, grid: Grid, states: Mapping[str, State]) -> list[dict[str, Any]]:
    """Return the runs of a recipe with their states."""
    return [
        {
            "recipe": name,
            "run_id": cell.run_id,
            "label": label,
            "dataset": cell.dataset.name,
            "imbalance_factor": cell.imbalance_factor,
            "split_seed": cell.dataset.split_seed,
            "seed": cell.seed,
            "status": states[cell.run_id].status,
            "reason": states[cell.run_id].reason,
        }
        for label, cell in grid.cells
    ]


def _states(name: str, rows: Sequence[dict[str, Any]], wide: bool, several_splits: bool) -> FittingTable:
    split = ("split",) if several_splits else ()
    shown = table(name, "state", "run", "label", "data", *split, "seed", "", numbers=(*split, "seed"))
    for row in rows:
        shown.add_row(
            coloured(row["status"]),
            row["run_id"] if wide else row["run_id"][-SHORT:],
            escape(row["label"]),
            f"{row['dataset']} {row['imbalance_factor']:g}",
            *([str(row["split_seed"])] if several_splits else []),
            str(row["seed"]),
            escape(row["reason"] or ""),
        )
    return shown


def report(
    recipes: Names = None,
    methods: Methods = None,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    data: Data = DATA,
) -> None:
    """Write the pages of the leaderboard, its runs and all recipes; or of the named recipes only.

    Stale runs (see `status`) are in no table.

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
    warn(runs.conflicts)


def _now(data: Path, methods: list[Path] | None) -> Now:
    """Return the current data, and the code of the given methods files, without torch if there are none."""
    from bench.launch.todo import as_now
    from bench.stale import Now

    return as_now(data, methods) if methods else Now(data)


def write_report(name: str, runs: AllRuns, reports: Path) -> None:
    """Write the pages of one recipe, and print their paths."""
    from bench.report.recipe_page import render_recipe

    for path in render_recipe(runs, name, reports):
        print_line(f"report  {path}")


def _chosen(names: Iterable[str] | None, runs: AllRuns) -> Mapping[str, Grid]:
    """Return the grids of the named recipes, or of all recipes."""
    known, chosen = runs.grids, {}
    if not known:
        raise BenchError(f"{runs.root / 'grids'}: no recipe was run yet; start with `run RECIPE`")
    for text in names or known:
        name = Path(text).name.removesuffix(".yaml")
        if name not in known:
            hint = f"; `run {text}` trains it" if Path(text).is_file() else did_you_mean(name, known)
            raise BenchError(f"{runs.root}: has no run of a recipe {name!r}{hint}")
        chosen[name] = known[name]
    return chosen


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's name, its last ten characters, or its weights file.")
    ],
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Images, one folder per class.")
    ] = None,
    methods: Methods = None,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Test a trained model on its test set, or on a folder of images.

    [bold]Examples[/]

    \b
    python run_bench.py evaluate 0123456789
    python run_bench.py evaluate results/runs/RUN/weights.safetensors --folder data/my_images
    """
    from bench import records
    from bench.data.read.folder import list_images, passed_over
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
        run = records.Results(results).find(model).directory
    if not run.weights.exists():
        raise BenchError(f"{run.run_id}: its weights are not here; `rerun {run.run_id}` makes them again")
    metrics = evaluate_run(run, data, folder)
    for line in passed_over(list_images(folder).passed_over) if folder else ():
        print_line(printable(line), "yellow")
    shown = table(run.run_id, "metric", "value", numbers=("value",))
    for key, value in metrics.items():
        if not isinstance(value, list | dict):
            shown.add_row(key, "n/a" if value is None else f"{value:.2f}")
    console().print(shown)


def export(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Other results folders to merge."),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write finished runs to results/records, as compact text for git.

    Runs that are there stay unchanged. Two different records of one run are an error, and nothing is written.

    [bold]Examples[/]

    \b
    python run_bench.py export
    python run_bench.py export /mnt/other_machine/results
    """
    from bench import ledger
    from bench.records import results_folder

    exported = ledger.export(results_folder(results), map(results_folder, sources or ()))
    warn(exported.left_out, "left out: ")
    for path in exported.files:
        print_line(f"ledger  {path}")
    print_line(f"{exported.lines} runs, {exported.new} of them new or fuller")


def clean(
    results: Results = RESULTS,
    older_than: Annotated[
        float,
        typer.Option("--older-than", metavar="DAYS", min=0, help="Only runs that ended earlier than this."),
    ] = 0,
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete them; without it they are only listed.")
    ] = False,
) -> None:
    """Delete the checkpoints of finished runs, which are not needed any more.

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
            freed += (size := path.stat().st_size)
            print_line(f"{size / 1e6:9.1f} MB  {path}")
            if apply:
                path.unlink()
    end = "deleted" if apply else "in total; delete them with --apply"
    print_line(f"{freed / 1e6:9.1f} MB  {end}")
