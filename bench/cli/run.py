"""The commands `run` and `rerun`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
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
    Compile,
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
    Run,
    Set,
    console,
    print_line,
    table,
)
from bench.cli.grids import (
    print_retrained,
    print_search,
    read_cells,
    sum_up,
)
from bench.cli.results import write_report
from bench.errors import BenchError
from bench.launch.todo import as_now, gpus_of, todo
from bench.rundir import Busy

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.loggers import Wanted
    from bench.rundir import State


def run(
    recipe: Recipe,
    only: Only = None,
    set_: Set = None,
    methods: Methods = None,
    jobs: Jobs = None,
    gpus: Gpus = None,
    per_gpu: PerGpu = None,
    force: Annotated[bool, typer.Option("--force", help="Train all of them again.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Train failed and unreadable runs again.")
    ] = False,
    retrain_stale: Annotated[
        bool,
        typer.Option("--retrain-stale", help="Train stale runs again: those made with other data or code."),
    ] = False,
    results: Results = RESULTS,
    data: Data = DATA,
    reports: Reports = REPORTS,
    log: Log = None,
    compile_: Compile = False,
    launcher: cluster.Where = cluster.Launcher.local,
    partition: cluster.Partition = None,
    minutes: cluster.Minutes = None,
    gpus_per_run: cluster.GpusPerRun = None,
    max_parallel: cluster.MaxParallel = None,
    sbatch: cluster.Sbatch = None,
    no_wait: cluster.NoWait = False,
) -> None:
    """Train the cells of a recipe that are not trained yet, and write its report.

    Finished runs stay, and interrupted runs continue from their checkpoints. Ctrl-C stops it. Runs made with
    other data or other code of yours are stale: they stay, too, and are in no table.
    With --force, --retry-failed and --retrain-stale the new run is trained in results/rerun, and replaces the
    old one when it is done. If you stop it, `run` without these options continues.
    On a cluster the jobs continue when you stop this command, and the same command shows them again.

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
    from bench import gridfile, records
    from bench.cell import families
    from bench.launch.rerun import BAD
    from bench.launch.together import is_first, run_together, under_torchrun
    from bench.loggers import chosen as chosen_loggers
    from bench.recipe import grid_file
    from bench.train.compiled import COMPILE, refuse

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
    if compile_:
        os.environ[COMPILE] = "1"
    chosen = gpus_of(gpus) if launcher is cluster.Launcher.local else []  # first, as it may refuse
    if launcher is cluster.Launcher.local:
        refuse("cuda" if chosen else "cpu")
    runs = records.Results(results, as_now(data, methods or ()))
    grid, asked = read_cells(recipe, only, set_, runs)
    loggers = chosen_loggers(log, grid.log)
    if loggers and no_wait:
        names = ", ".join(logger.name for logger in loggers)
        raise BenchError(
            f"--no-wait: runs are logged ({names}) only while this command waits for them; leave it out, or "
            "add --log none"
        )
    work = todo(asked, runs, data, retrain_stale=retrain_stale, force=force)
    if is_first():
        for remark in work.remarks:
            print_line(remark, "yellow")
        gridfile.write_grid(results, grid.name, grid_file(grid))
    how: dict[str, Any] = {"retry_failed": retry_failed, "methods": methods or (), "rerun": work.over}
    options: dict[str, Any]
    if launcher is cluster.Launcher.slurm:
        from bench.launch.slurm import follow

        next_steps = cluster.send(work.cells, results, data, ask, **how)
        if no_wait:
            print_line(next_steps)
            return
        options = {"start": follow, "stopped": next_steps}
    elif together:
        options = {"start": run_together, "gpus": chosen, **how}
    else:
        options = {"jobs": jobs, "gpus": chosen, "per_gpu": per_gpu, **how}
    if force and launcher is cluster.Launcher.local:
        options["stopped"] = "stopped; the same command without --force continues from here"
    if is_first():
        states = records.AGAIN | BAD if retry_failed else records.AGAIN
        print_retrained(runs.needed(work.cells, states, work.again))
    ends = _launch(work.cells, results, data, labels=grid.labels, loggers=loggers, **options)
    if not is_first():
        return
    after = records.Results(results, as_now(data))
    write_report(grid.name, after, reports)
    standing = after.states(families(asked).values())
    if grid.search:
        print_search(grid.search.record(), [point.cell for point in grid.points], after)
    raise typer.Exit(sum_up({i: s if s.status == "stale" else ends.get(i, s) for i, s in standing.items()}))


def rerun(
    run: Run,
    methods: Methods = None,
    gpus: Gpus = None,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Train one run again, compare the new record with the old one, and keep the new one.

    Where only the record of a run is here, this makes its weights and logits again, after those of its
    parents. If it is stopped, the old run stays as it was. Exits with 1 if the records differ.

    [bold]Examples[/]

    \b
    python run_bench.py rerun 0123456789
    python run_bench.py rerun digits-if20-ce-s0-f8c9
    """
    from bench import ledger, records
    from bench.cell import families
    from bench.launch.rerun import kept

    runs = records.Results(results, as_now(data, methods or ()))
    found = runs.find(run)
    cell, old = found.cell, found.packed() if found.state.status in ("done", "stale") else None
    family = families([cell])
    for run_id, state in runs.states(family.values()).items():
        if state.status == "stale":
            raise BenchError(f"{run_id}: {state.reason}; a rerun needs the data and code of the old record")
    if found.directory.is_running():
        raise Busy(f"{cell.run_id}: another process is running it")
    print_retrained(runs.needed([cell], forced=[cell.run_id]))
    options: dict[str, Any] = {"gpus": gpus_of(gpus)[:1], "retry_failed": True, "rerun": [cell.run_id]}
    before = kept(results, cell.run_id)
    ends = _launch([cell], results, data, labels={}, methods=methods or (), **options)
    if ends[cell.run_id].status != "done":
        raise typer.Exit(sum_up(ends))
    for path in kept(results, cell.run_id)[len(before) :]:
        print_line(f"the old run is kept as {path}")
    if old is None:
        print_line("there is no record of an earlier run to compare with")
        return
    differing = ledger.unlike(old, records.Results(results)[cell.run_id].packed())
    if not differing:
        console().print("[green]EQUAL[/]: the new record is the same as the old one")
        return
    shown = table("The new record differs", "where", "old", "new")
    for where, before, after in differing:
        shown.add_row(where, escape(str(before)), escape(str(after)))
    console().print(shown)
    raise typer.Exit(SOME_FAILED)


def _launch(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    labels: Mapping[str, str],
    loggers: Sequence[Wanted] = (),
    start: Callable[..., dict[str, State]] | None = None,
    stopped: str = "stopped; the same command continues from here",
    **options: Any,
) -> dict[str, State]:
    """Run the cells with progress bars, until the end or Ctrl-C.

    Args:
        loggers: where else their curves are written.
        start: the launcher; default: this machine's.
        stopped: the message after Ctrl-C.
    """
    from bench.launch.local import run_grid
    from bench.launch.progress import watch
    from bench.launch.together import is_first
    from bench.loggers.relay import noted

    def warn(text: str) -> None:
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True, highlight=False)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # treated like Ctrl-C
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
