"""The options of `run --launcher slurm`, and what it tells while jobs are under way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import console
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.launch.slurm import Ask


class Launcher(StrEnum):
    """Where runs execute."""

    local = "local"
    slurm = "slurm"


PANEL = "With --launcher slurm"

Where = Annotated[Launcher, typer.Option("--launcher", help="This machine, or the jobs of a cluster.")]
Partition = Annotated[
    str | None,
    typer.Option(
        "--partition", metavar="P", rich_help_panel=PANEL, help="Slurm's [dim](default: its own)[/]"
    ),
]
Minutes = Annotated[
    int | None,
    typer.Option(
        "--time",
        metavar="MIN",
        min=5,
        rich_help_panel=PANEL,
        help="Minutes a job may take; a longer run goes on in the next [dim](default: 240)[/]",
    ),
]
GpusPerRun = Annotated[
    int | None,
    typer.Option(
        "--gpus-per-run",
        min=0,
        rich_help_panel=PANEL,
        help="One, or several of a node that share each run; 0: on the CPU [dim](default: 1)[/]",
    ),
]
MaxParallel = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        min=1,
        rich_help_panel=PANEL,
        help="Jobs at once [dim](default: what Slurm gives)[/]",
    ),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="KEY=VALUE",
        rich_help_panel=PANEL,
        help="Any option of sbatch, as account=lab, mem=32G, exclusive; may be repeated.",
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", rich_help_panel=PANEL, help="Submit, and do not wait for the end.")
]


def ask_of(
    partition: str | None,
    minutes: int | None,
    gpus_per_run: int | None,
    max_parallel: int | None,
    per_gpu: int | None,
    sbatch: Sequence[str] | None,
) -> Ask:
    """Return the options as what each job asks of the cluster, if there is one."""
    from bench.launch.slurm import OURS, Ask, check_commands

    more: dict[str, str | bool] = {}
    for text in sbatch or ():
        key, given, value = text.removeprefix("--").partition("=")
        if key in OURS:
            raise BenchError(f"--sbatch {key}: is the launcher's to set; see `run --help` for its options")
        more[key] = value if given else True
    if (gpus_per_run or 1) > 1 and (per_gpu or 1) > 1:
        raise BenchError(
            f"--runs-per-gpu {per_gpu}: runs on {gpus_per_run} GPUs each share none; leave it out"
        )
    asked = {"partition": partition, "minutes": minutes, "gpus": gpus_per_run}
    asked |= {"runs": per_gpu, "at_once": max_parallel}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    check_commands()
    return Ask(more=more, **chosen)


def refuse_other(launcher: Launcher, local: Mapping[str, object], slurm: Mapping[str, object]) -> None:
    """Refuse options that mean nothing to the launcher that was chosen.

    Args:
        local, slurm: the options of each that were given or not, with their values.
    """
    foreign = slurm if launcher is Launcher.local else local
    for option, value in foreign.items():
        if value:
            raise BenchError(f"{option}: not with --launcher {launcher.value}; see `run --help`")


def send(cells: Sequence[Cell], results: Path, data: Path, ask: Ask, **options: Any) -> str:
    """Submit what is to run, say so, and return how to end it and to look again."""
    from bench.cell import families
    from bench.launch import queue
    from bench.launch.slurm import submit

    family = families(cells)
    before = {job.array for run_id, job in queue.jobs(results).items() if run_id in family}
    if before:
        say(f"already in the queue: {_jobs(before)}")
    submitted = submit(cells, results, data, ask, **options)
    for array, runs in submitted.items():
        say(f"submitted: job {array} (runs: {len(runs)}), which prints to {queue.notes(results)}")
    arrays = sorted({*before, *submitted}, key=int)
    if not arrays:
        return "stopped"
    again = "look again with the same command, or `status`"
    return f"{_jobs(arrays)}: on its way; {again}; cancel with `scancel {' '.join(arrays)}`"


def _jobs(arrays: Iterable[str]) -> str:
    return "job " + ", ".join(sorted(arrays, key=int))


def say(text: str) -> None:
    """Print one line, however long."""
    console().print(text, soft_wrap=True, highlight=False, markup=False)
