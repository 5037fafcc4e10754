"""Runs of a results folder in Slurm's queue: notes of what was submitted, joined with `squeue`.

Slurm's accounting is not used: once a task has left the queue, the run directories have all there is to know.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.files import write_text
from bench.rundir import State, first_line

#: What our jobs are called in the queue.
JOB_NAME = "longtail-bench"


@dataclass(frozen=True)
class Queued:
    """One task of an array that has not ended: its id, its state, and Slurm's reason if it waits."""

    id: str
    state: str
    reason: str = "None"

    @property
    def array(self) -> str:
        """The id of its array."""
        return self.id.partition("_")[0]

    def __str__(self) -> str:
        waits = f" ({self.reason})" if self.reason != "None" else ""
        return f"job {self.id} {self.state.lower()}{waits}"


def notes(results: Path) -> Path:
    """Return the folder of the notes, and of what the tasks print."""
    return results / "slurm"


def note(results: Path, array: str, tasks: list[list[str]]) -> None:
    """Note the run ids of each task of an array."""
    write_text(notes(results) / f"{array}.json", json.dumps({"tasks": tasks}) + "\n")


def queued(results: Path) -> dict[str, Queued]:
    """Return the tasks that have not ended, by run id.

    Raises:
        BenchError: Slurm is here but does not answer.
    """
    if not notes(results).is_dir() or shutil.which("squeue") is None:
        return {}
    found: dict[str, Queued] = {}
    for task in read_queue(_squeue()):
        file = notes(results) / f"{task.array}.json"
        if file.exists():  # else it belongs to another results folder
            number = int(task.id.partition("_")[2] or 0)
            found |= dict.fromkeys(json.loads(file.read_text())["tasks"][number], task)
    return found


def _squeue() -> str:
    command = ["squeue", "--noheader", "--array", f"--name={JOB_NAME}", "--format=%i|%T|%r"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except subprocess.CalledProcessError as error:
        raise BenchError(f"squeue: {error.stderr.strip() or error}; try again later") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"squeue: {first_line(error)}; try again later") from error


def read_queue(lines: str) -> list[Queued]:
    """Read squeue's lines `id|state|reason`."""
    return [Queued(*line.split("|", 2)) for line in lines.splitlines()]


def with_queue(known: Mapping[str, State], queue: Mapping[str, Queued]) -> dict[str, State]:
    """Set the state of runs that are still to run to queued, if they are in the queue."""
    return {
        run_id: State("queued", str(queue[run_id]))
        if run_id in queue and state.status in ("missing", "interrupted")
        else state
        for run_id, state in known.items()
    }
