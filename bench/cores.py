"""How many of the machine's cores are ours, and how many of them read images for a run."""

from __future__ import annotations

import os

from bench.errors import BenchError

#: How many processes read images for a run; 0: the run itself. It changes no result.
WORKERS = "LONGTAIL_WORKERS"
MOST_WORKERS = 16


def cores() -> int:
    """Return how many cores a scheduler leaves us of the machine."""
    # not on macOS; and not every Slurm binds a task to the cores that are its own
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, int(os.environ.get("SLURM_CPUS_PER_TASK", bound)))


def read_with(own: int) -> None:
    """Let the runs of this process on a GPU read with so many cores, unless the user has chosen a number."""
    os.environ.setdefault(WORKERS, str(min(max(own, 1), MOST_WORKERS)))


def readers(on_gpu: bool) -> int:
    """Return how many processes shall read for a run here, which on the CPU needs its core itself.

    Raises:
        BenchError: the user's choice is no number.
    """
    asked = os.environ.get(WORKERS, str(min(cores(), MOST_WORKERS)) if on_gpu else "0")
    if not (asked.isascii() and asked.isdigit()) or int(asked) > 256:
        raise BenchError(f"{WORKERS}={asked[:20]!r}: should be a number of processes, from 0 on")
    return int(asked)
