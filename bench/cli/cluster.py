"""The options of `run --launcher slurm`, and what it prints while jobs are queued or running."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import print_line
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.launch.slurm import Ask


class Launcher(StrEnum):
    """Where runs are executed."""

    local = "local"
    slurm = "slurm"


PANEL = "With --launcher slurm"

Where = Annotated[
    Launcher, typer.Option("--launcher", help="Where to run: on this machine, or as jobs of a Slurm cluster.")
]
Partition = Annotated[
    str | None,
    typer.Option(
        "--partition", metavar="P", rich_help_panel=PANEL, help="Slurm partition [dim](default: Slurm's)[/]"
    ),
]
Minutes = Annotated[
    int | None,
    typer.Option(
        "--time",
        metavar="MIN",
        min=5,
        rich_help_panel=PANEL,
        help="Minutes per job; a longer run continues in the next job [dim](default: 240)[/]",
    ),
]
GpusPerRun = Annotated[
    int | None,
    typer.Option(
        "--gpus-per-run",
        min=0,
        rich_help_panel=PANEL,
        help="GPUs of a node for each run; 0: CPU only [dim](default: 1)[/]",
    ),
]
MaxParallel = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        min=1,
        rich_help_panel=PANEL,
        help="Simultaneous jobs [dim](default: as Slurm allows)[/]",
    ),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="KEY=VALUE",
        rich_help_panel=PANEL,
        help="Any option of sbatch: account=lab, mem=32G, exclusive; may be repeated.",
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
    """Return what each job requests from the cluster."""
    from bench.launch.slurm import OURS, Ask, check_commands

    more: dict[str, str | bool] = {}
    for text in sbatch or ():
        key, given, value = text.removeprefix("--").partition("=")
        if key in OURS:
            raise BenchError(f"--sbatch {key}: is the launcher's to set; see `run --help` for its options")
        more[key] = value if given else True
    if (gpus_per_run or 1) > 1 and (per_gpu or 1) > 1:
        raise BenchError(
            f"--runs-per-gpu {per_gpu}: runs on {gpus_per_run} GPUs each do not share a GPU; leave it out"
        )
    asked = {"partition": partition, "minutes": minutes, "gpus": gpus_per_run}
    asked |= {"runs": per_gpu, "at_once": max_parallel}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    check_commands()
    return Ask(more=more, **chosen)


def refuse_other(launcher: Launcher, local: Mapping[str, object], slurm: Mapping[str, object]) -> None:
    """Refuse options that the chosen launcher does not have.

    Args:
        local, slurm: the options of each that were given or not, with their values.
    """
    foreign = slurm if launcher is Launcher.local else local
    for option, value in foreign.items():
        if value:
            raise BenchError(f"{option}: not with --launcher {launcher.value}; see `run --help`")


def send(cells: Sequence[Cell], results: Path, data: Path, ask: Ask, **options: Any) -> str:
    """Submit the runs, print the jobs, and return how to cancel them and look again."""
    from bench.cell import families
    from bench.launch import queue
    from bench.launch.slurm import submit

    family = families(cells)
    before = {task.array for run_id, task in queue.queued(results).items() if run_id in family}
    if before:
        print_line(f"already in the queue: {_jobs(before)}")
    submitted = submit(cells, results, data, ask, **options)
    for array, runs in submitted.items():
        print_line(f"submitted: job {array} (runs: {len(runs)}), which prints to {queue.notes(results)}")
    arrays = sorted({*before, *submitted}, key=int)
    if not arrays:
        return "stopped"
    again = "look again with the same command, or `status`"
    return f"{_jobs(arrays)}: on its way; {again}; cancel with `scancel {' '.join(arrays)}`"


def _jobs(arrays: Iterable[str]) -> str:
    return "job " + ", ".join(sorted(arrays, key=int))
