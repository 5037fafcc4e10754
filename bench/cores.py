"""How many of the machine's cores are available, and how many processes read images for a run."""

from __future__ import annotations

import os

from bench.errors import BenchError

#: The environment variable with the number of processes that read images for a run; 0: the run itself does.
#: It changes no result.
WORKERS = "LONGTAIL_WORKERS"
MOST_WORKERS = 16


def cores() -> int:
    """Return how many cores the scheduler gives this process."""
    # macOS has no affinity; and not every Slurm binds a task to its cores
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, int(os.environ.get("SLURM_CPUS_PER_TASK", bound)))


def read_with(own: int) -> None:
    """Set the number of reading processes for the runs on this process's GPU, unless the user has set it."""
    os.environ.setdefault(WORKERS, str(min(max(own, 1), MOST_WORKERS)))


def readers(on_gpu: bool) -> int:
    """Return how many processes read images for a run; on the CPU the run itself does.

    Raises:
        BenchError: the environment variable is not a number.
    """
    asked = os.environ.get(WORKERS, str(min(cores(), MOST_WORKERS)) if on_gpu else "0")
    if not (asked.isascii() and asked.isdigit()) or int(asked) > 256:
        raise BenchError(f"{WORKERS}={asked[:20]!r}: should be a number of processes, from 0 on")
    return int(asked)
