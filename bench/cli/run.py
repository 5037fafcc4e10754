"""Training: what a recipe would cost, its runs, and one run once more."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from bench.cli import cluster
from bench.cli.common import (
    DATA,
    INTERRUPTED,
    REPORTS,
    RESULTS,
    SOME_FAILED,
    Data,
    Gpus,
    Jobs,
    Log,
    Methods,
    Only,
    PerGpu,
    Recipe,
    Reports,
    Results,
    Set,
    coloured,
    console,
    find_run,
    table,
)
from bench.cli.results import write_report
from bench.errors import BenchError
from bench.rundir import RunDir

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.loggers import Wanted
    from bench.recipe import Recipe as Grid
    from bench.records import State
    from bench.stale import Now


def run(
    recipe: Recipe,
    only: Only = None,
    set_: Set = None,
    methods: Methods = None,
    jobs: Jobs = None,
    gpus: Gpus = None,
    per_gpu: PerGpu = None,
    force: Annotated[bool, typer.Option("--force", help="Start over, done or not.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Start over what failed or cannot be read.")
    ] = False,
    retrain_stale: Annotated[
        bool,
        typer.Option("--retrain-stale", help="Start over what was done on other data or code than now."),
    ] = False,
    results: Results = RESULTS,
    data: Data = DATA,
    reports: Reports = REPORTS,
    log: Log = None,
    launcher: cluster.Where = cluster.Launcher.local,
    partition: cluster.Partition = None,
    minutes: cluster.Minutes = None,
    gpus_per_run: cluster.GpusPerRun = None,
    max_parallel: cluster.MaxParallel = None,
    sbatch: cluster.Sbatch = None,
    no_wait: cluster.NoWait = False,
) -> None:
    """Train the cells of a recipe that are not trained yet, and write its report.

    What is done stays, what was interrupted goes on from its checkpoint. Stop it with Ctrl-C. What was done
    on other data or with other code of yours is stale: it stays too, and is in no table.
    The jobs of a cluster go on without you, and the same command shows them again.

    [bold]Examples[/]

    \b
    python run_bench.py run quick
    python run_bench.py run quick --only method=ldam --only seed=0,1
    python run_bench.py run quick --set protocol.epochs=2 --jobs 2
    python run_bench.py run cifar_lt_plain --gpus 0,1 --per-gpu 3
    python run_bench.py run my.yaml --methods my_method.py
    python run_bench.py run quick --log tensorboard --log wandb:project=lt,mode=offline
    python run_bench.py run quick --retry-failed
    python run_bench.py run cifar_lt_plain --launcher slurm --partition gpu --time 120
    python run_bench.py run quick --launcher slurm --gpus-per-run 0 --no-wait
    torchrun --nproc-per-node 4 run_bench.py run imagenet_lt_decoupling --only label=ce
    """
    from bench import records
    from bench.cell import families
    from bench.launch.process import BAD
    from bench.launch.together import is_first, run_together, under_torchrun
    from bench.loggers import chosen as chosen_loggers
    from bench.recipe import grid_file
    from bench.stale import SETTLED, refuse_other_content, to_train

    together = under_torchrun()
    if together and (jobs or per_gpu or launcher is not cluster.Launcher.local):
        raise BenchError("--jobs, --per-gpu, --launcher: under torchrun a run has all GPUs; leave them out")
    cluster.refuse_other(
        launcher,
        local={"--jobs": jobs, "--gpus": gpus},
        slurm={
            "--partition": partition,
            "--time": minutes,
            "--gpus-per-run": gpus_per_run is not None,
            "--max-parallel": max_parallel,
            "--sbatch": sbatch,
            "--no-wait": no_wait,
        },
    )
    if launcher is cluster.Launcher.slurm:
        ask = cluster.ask_of(partition, minutes, gpus_per_run, max_parallel, per_gpu, sbatch)
    chosen = _gpus(gpus) if launcher is cluster.Launcher.local else []  # it may refuse, so before all else
    grid, asked = _read(recipe, only, set_, methods)
    loggers = chosen_loggers(log, grid.log)
    if log and no_wait:
        raise BenchError("--log: not with --no-wait; loggers hear of runs while this command waits for them")
    now = _now(data)
    runs = records.Results(results, now)
    known = runs.states(families(asked).values())
    refuse_other_content(asked, runs, now)
    cells, over = to_train(asked, known, retrain_stale=retrain_stale, force=force)
    _check([cell for cell in cells if cell.run_id in over or known[cell.run_id].status not in SETTLED], data)
    if is_first():
        records.write_grid(results, grid.name, grid_file(grid))
    again: dict[str, Any] = {"retry_failed": retry_failed, "methods": methods or (), "over": over}
    options: dict[str, Any]
    if launcher is cluster.Launcher.slurm:
        from bench.launch.slurm import follow

        goes_on = cluster.send(cells, results, data, ask, **again)
        if no_wait:
            cluster.say(goes_on)
            return
        options = {"start": follow, "stopped": goes_on}
    elif together:
        options = {"start": run_together, "gpus": chosen, **again}
    else:
        options = {"jobs": jobs, "gpus": chosen, "per_gpu": per_gpu, **again}
    if is_first():
        states = records.AGAIN | BAD if retry_failed else records.AGAIN
        _tell_anew(runs.needed(cells, states, over))
    ends = _launch(cells, results, data, labels=_labels(grid), loggers=loggers, **options)
    if not is_first():
        return
    after = records.Results(results, _now(data))
    write_report(grid.name, after, reports)
    standing = after.states(families(asked).values())
    raise typer.Exit(_sum_up({i: s if s.status == "stale" else ends.get(i, s) for i, s in standing.items()}))


def plan(
    recipe: Recipe,
    only: Only = None,
    set_: Set = None,
    methods: Methods = None,
    jobs: Jobs = None,
    gpus: Gpus = None,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Show what `run` would train, and how long it would take by the pace of past runs.

    [bold]Examples[/]

    \b
    python run_bench.py plan quick
    python run_bench.py plan quick --only method=ldam --jobs 1
    """
    from bench import records
    from bench.cell import families
    from bench.cli import horizon
    from bench.cli.estimate import Pace
    from bench.launch.local import places
    from bench.report.text import duration
    from bench.stale import refuse_other_content

    slots = places(jobs, _gpus(gpus))
    grid, cells = _read(recipe, only, set_, methods)
    labels = _labels(grid)
    family = families(cells)
    now = _now(data)
    runs = records.Results(results, now)
    known, anew = runs.states(family.values()), runs.needed(cells)
    refuse_other_content(cells, runs, now)
    on_gpu = slots[0].gpu is not None
    pace = Pace(results, data, on_gpu)
    shown = table(grid.name, "state", "time", "run", "label", numbers=("time",))
    times: dict[str, float | None] = {}
    for run_id, cell in family.items():
        state, told = known[run_id], ""
        if state.status in records.AGAIN or run_id in anew:
            times[run_id] = pace.seconds(cell)
            told = duration(times[run_id]) + (" (its weights are not here)" if run_id in anew else "")
        label = labels.get(run_id, cell.method.name)
        shown.add_row(coloured(state.status), told, run_id, escape(label))
    console().print(shown)
    refused = _problems([family[run_id] for run_id in times], data)
    for problem in dict.fromkeys(
        [*pace.problems, *refused, *horizon.warnings(family.values(), labels, data)]
    ):
        console().print(f"[yellow]{escape(problem)}[/]", soft_wrap=True, highlight=False)
    where = f"on {len(slots)} GPUs" if on_gpu else f"{len(slots)} at once"
    told = f"{len(times)} of {len(family)} runs to train"
    if times:
        told += f", {where}: {_time(times, family, len(slots))}"
    console().print(told, highlight=False)
    _tell_stale(known)


def _problems(cells: Sequence[Cell], data: Path) -> list[str]:
    """Say all that `run` would refuse, or remark on, of what it would train."""
    from bench.cli.estimate import CHECKS

    told: list[str] = []
    for check in CHECKS:
        try:
            told += check(cells, data)
        except BenchError as error:
            told += str(error).split("\n")
    return told


def _time(times: Mapping[str, float | None], family: Mapping[str, Cell], places: int) -> str:
    """Say how long runs will take; what is not known of them is never told as nothing."""
    from bench.cli.estimate import total
    from bench.report.text import duration

    unknown = sum(seconds is None for seconds in times.values())
    if not unknown:
        return duration(total(times, family, places) or 0)
    if any(times.values()):
        return f"more than {duration(total(times, family, places))} ({unknown} of unknown time)"
    return f"time unknown, as no run on such a backbone and image size has ended here ({unknown} runs)"


def rerun(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Its name, the beginning of it, or its last ten characters.")
    ],
    methods: Methods = None,
    gpus: Gpus = None,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Train one run once more and compare the new record with the old one; the new one takes its place.

    Of a run whose record alone is committed it makes weights and scores again, and before it those of what
    it starts from. Whatever stops it leaves the old run as it was. Exits with 1 if the records differ.

    [bold]Examples[/]

    \b
    python run_bench.py rerun 0123456789
    python run_bench.py rerun digits-if10-ce-s0
    """
    from bench import ledger, records
    from bench.launch.anew import beside, spent, take_over

    found = find_run(results, run)
    cell, old = found.cell, found.packed() if found.state.status in ("done", "stale") else None
    place = beside(results, cell)
    _tell_anew([parent.run_id for parent in cell.family()[:-1] if not RunDir(place, parent.run_id).is_done()])
    options: dict[str, Any] = {"gpus": _gpus(gpus)[:1], "retry_failed": True, "methods": methods or ()}
    ends = _launch([cell], place, data, labels={}, **options)
    if ends[cell.run_id].status != "done":
        raise typer.Exit(_sum_up(ends))
    replaced = take_over(results, cell)
    spent(results)
    for path in replaced:
        console().print(f"the old run is kept as {escape(str(path))}", soft_wrap=True, highlight=False)
    if old is None:
        console().print("there is no record of an earlier run to compare with")
        return
    differing = ledger.unlike(old, records.Results(results)[cell.run_id].packed())
    if not differing:
        console().print("[green]EQUAL[/]: the new record says what the old one said")
        return
    shown = table("The new record differs", "where", "old", "new")
    for where, before, after in differing:
        shown.add_row(where, escape(str(before)), escape(str(after)))
    console().print(shown)
    raise typer.Exit(SOME_FAILED)


def _tell_anew(parents: Sequence[str]) -> None:
    """Say which committed parents are trained anew."""
    for parent in parents:
        told = f"anew    {escape(parent)}: its weights are not here, and a run starts from them"
        console().print(told, soft_wrap=True, highlight=False)


def _read(
    recipe: Path, only: list[str] | None, sets: list[str] | None, methods: list[Path] | None
) -> tuple[Grid, list[Cell]]:
    """Return a recipe and the cells of it that were chosen."""
    from bench import registry
    from bench.recipe import load

    registry.load_files(methods or ())
    grid = load(recipe, sets or ())
    if sets:  # other cells than the recipe's own must not take the place of its report
        grid = replace(grid, name=f"{grid.name}-set", title=f"{grid.title} ({', '.join(sets)})")
    return grid, [point.cell for point in grid.only(only or ()).points]


def _labels(grid: Grid) -> dict[str, str]:
    return {point.cell.run_id: point.label for point in grid.points}


def _now(data: Path) -> Now:
    """Return data and code as they are here; methods files are loaded."""
    from bench import registry
    from bench.stale import Now

    return Now(data, registry.sources())


def _check(cells: Sequence[Cell], data: Path) -> None:
    """Check backbones and data of what is to be trained: better one error now than one in each run."""
    from bench.cli.estimate import CHECKS
    from bench.launch.together import is_first

    for remark in (remark for check in CHECKS for remark in check(cells, data)):
        if is_first():
            console().print(f"[yellow]{escape(remark)}[/]", soft_wrap=True, highlight=False)


def _gpus(chosen: str | None) -> list[str]:
    """Return the GPUs as `CUDA_VISIBLE_DEVICES` names them."""
    if chosen == "none":
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")[:count]
    if chosen is None:
        return visible
    try:
        return [visible[int(number)] for number in chosen.split(",")]
    except (ValueError, IndexError):
        raise BenchError(f"--gpus {chosen}: there are {count} GPUs here; write as 0,1 or none") from None


def _launch(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    labels: Mapping[str, str],
    loggers: Sequence[Wanted] = (),
    start: Callable[..., dict[str, State]] | None = None,
    stopped: str = "stopped; the same command goes on from here",
    **options: Any,
) -> dict[str, State]:
    """Run the cells under the eyes of the user, who may stop it.

    Args:
        loggers: where else their course is written.
        start: what runs them; default: this machine's launcher.
        stopped: what a user is told who stopped it.
    """
    from bench.launch.local import run_grid
    from bench.launch.progress import watch
    from bench.launch.together import is_first
    from bench.loggers.relay import noted

    def warn(text: str) -> None:
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True, highlight=False)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # to end us in order is to press Ctrl-C
    out = console()
    out.quiet = not is_first()
    try:
        with (
            watch(labels, out, results) as shown,
            noted(loggers if is_first() else (), results, labels, shown, warn) as listen,
        ):
            return (start or run_grid)(cells, results, data, listen=listen, **options)
    except KeyboardInterrupt:
        out.print(stopped, style="yellow", soft_wrap=True, highlight=False)
        raise typer.Exit(INTERRUPTED) from None


def _tell_stale(known: Mapping[str, State]) -> None:
    """Say which runs stand no more for their data and code, and why."""
    for run_id, state in known.items():
        if state.status == "stale":
            told = f"[red]stale[/]   {escape(run_id)}: {escape(state.reason or '')}"
            console().print(told, soft_wrap=True, highlight=False)


def _sum_up(ends: Mapping[str, State]) -> int:
    """Print how many runs ended how, and return the exit code that says it."""
    seen = Counter[str](state.status for state in ends.values())
    told = {"running": "running elsewhere"}
    console().print(
        "runs    " + ", ".join(f"{n} {told.get(status, status)}" for status, n in seen.most_common()),
        highlight=False,
    )
    _tell_stale(ends)
    if seen["failed"] or seen["unreadable"]:
        console().print("try what failed again with --retry-failed; all of why is in each run's log.txt")
    bad = ("stale", "failed", "unreadable", "blocked", "interrupted", "missing")
    return SOME_FAILED if any(seen[status] for status in bad) else 0
