"""What of a results folder waits or runs in Slurm: notes of what was submitted, joined with `squeue`.

No accounting is asked: of a job that has left the queue the run directories tell all there is to know.
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
class Job:
    """One task of an array that has not ended: its id, its state, and Slurm's reason if it waits."""

    id: str
    state: str
    reason: str = "None"

    @property
    def array(self) -> str:
        """The id that its array's tasks share."""
        return self.id.partition("_")[0]

    def __str__(self) -> str:
        waits = f" ({self.reason})" if self.reason != "None" else ""
        return f"job {self.id} {self.state.lower()}{waits}"


def notes(results: Path) -> Path:
    """Return the folder of what was submitted, and of what jobs print."""
    return results / "slurm"


def note(results: Path, array: str, tasks: list[list[str]]) -> None:
    """Write down which runs the tasks of an array have, by their ids."""
    write_text(notes(results) / f"{array}.json", json.dumps({"tasks": tasks}) + "\n")


def jobs(results: Path) -> dict[str, Job]:
    """Return the jobs that have not ended, by the runs that they have.

    Raises:
        BenchError: Slurm is here but does not answer.
    """
    if not notes(results).is_dir() or shutil.which("squeue") is None:
        return {}
    found: dict[str, Job] = {}
    for job in read_queue(_squeue()):
        file = notes(results) / f"{job.array}.json"
        if file.exists():  # else of another results folder
            task = int(job.id.partition("_")[2] or 0)
            found |= dict.fromkeys(json.loads(file.read_text())["tasks"][task], job)
    return found


def _squeue() -> str:
    command = ["squeue", "--noheader", "--array", f"--name={JOB_NAME}", "--format=%i|%T|%r"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except subprocess.CalledProcessError as error:
        raise BenchError(f"squeue: {error.stderr.strip() or error}; try again later") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"squeue: {first_line(error)}; try again later") from error


def read_queue(told: str) -> list[Job]:
    """Read the lines `id|state|reason` of squeue."""
    return [Job(*line.split("|", 2)) for line in told.splitlines()]


def with_queue(known: Mapping[str, State], queue: Mapping[str, Job]) -> dict[str, State]:
    """Call queued what is still to run and in a job that has not ended."""
    return {
        run_id: State("queued", str(queue[run_id]))
        if run_id in queue and state.status in ("missing", "interrupted")
        else state
        for run_id, state in known.items()
    }
