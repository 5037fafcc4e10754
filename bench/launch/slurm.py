"""Runs cells on a cluster as Slurm array jobs, submitted through submitit, with one or a few cells per task.

On its node a task is an ordinary launcher of its cells: it locks, resumes and records in the same way. So the
run directories stay the only state; submitit's pickled results are never read, and Slurm does the scheduling.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.cell import Cell, families
from bench.cores import cores, read_with
from bench.errors import BenchError, did_you_mean
from bench.launch import queue
from bench.launch.local import Listen, run_grid
from bench.launch.process import Worker
from bench.launch.progress import watch
from bench.launch.rerun import BAD, begin, latest, pending, settle, withdraw
from bench.launch.together import is_first, run_together
from bench.records import AGAIN, Results
from bench.rundir import Busy, RunDir, State, attempt
from bench.train.compiled import COMPILE

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

#: Seconds before its time limit at which a task is signalled to continue in another job.
NOTICE = 90

#: Options of sbatch that this module sets itself.
OURS = frozenset({"array", "dependency", "error", "job-name", "nodes", "ntasks-per-node", "open-mode"})
OURS |= {"output", "partition", "signal", "time"}

#: States of a run that are final while its job continues.
ENDED = ("done", *sorted(BAD))


@dataclass(frozen=True)
class Ask:
    """What each task asks of the cluster.

    Attributes:
        minutes: its time limit; longer runs continue in another job.
        gpus: GPUs of each of its runs, several as under torchrun; 0: run on the CPU.
        runs: how many runs it has, which share the one GPU, or have a core each.
        at_once: how many tasks of an array may run at once; None: no limit.
        more: further options of sbatch.
    """

    partition: str | None = None
    minutes: int = 240
    gpus: int = 1
    runs: int = 1
    at_once: int | None = None
    more: dict[str, str | bool] = field(default_factory=dict)

    def parameters(self, tasks: int, after: Sequence[str]) -> dict[str, Any]:
        """Return them as submitit's parameters, for an array that starts after the arrays in `after`."""
        own = {"gres": f"gpu:{self.gpus}"} if self.gpus else {"cpus-per-task": str(self.runs)}
        asked: dict[str, Any] = {
            "job_name": queue.JOB_NAME,
            "time": self.minutes,
            "array_parallelism": min(tasks, self.at_once or tasks),
            "signal_delay_s": NOTICE,
            # srun does not give a step all cores of its job; and the package may not be installed
            "setup": [
                "own=$((${SLURM_CPUS_ON_NODE:-1} / ${SLURM_NTASKS_PER_NODE:-1}))",
                "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-$((own ? own : 1))}",
                f"export {COMPILE}={shlex.quote(os.environ.get(COMPILE, ''))}",
                f"export PYTHONPATH={shlex.quote(str(Path(__file__).parents[2]))}:$PYTHONPATH",
            ],
            "stderr_to_stdout": True,
            "additional_parameters": {"requeue": True, **own, **self.more},
        }
        if self.partition:
            asked["partition"] = self.partition
        if self.gpus > 1:  # a rank for each; none can run without the others
            asked |= {"ntasks_per_node": self.gpus, "srun_args": ["--kill-on-bad-exit=1"]}
        if after:
            asked["dependency"] = "afterany:" + ":".join(after)
        return asked


@dataclass
class Task:
    """What one task of an array does, each time it is started."""

    cells: tuple[Cell, ...]
    results: Path
    data: Path
    methods: tuple[Path, ...]
    ask: Ask
    worker: Worker | None
    needed: frozenset[str] = frozenset()

    def __call__(self) -> None:
        self.started, self.epochs = time.monotonic(), self._epochs()
        gpus = self._gpus()
        options: dict[str, Any] = {"gpus": gpus, "methods": self.methods, "needed": self.needed}
        if self.ask.gpus > 1:
            _be_a_rank()
            launch: Callable[..., object] = run_together
        else:
            launch = run_grid
            runs = self.ask.runs
            options |= {"jobs": None if gpus else runs, "per_gpu": runs, "worker": self.worker}
        with watch({}, Console(width=200, quiet=not is_first()), self.results) as listen:
            launch(self.cells, self.results, self.data, listen=listen, **options)

    def checkpoint(self) -> DelayedSubmission | None:
        """Return what continues in another job; submitit calls it shortly before the time limit."""
        from submitit.helpers import DelayedSubmission

        had_its_time = time.monotonic() - self.started > 60 * self.ask.minutes - 2 * NOTICE
        if had_its_time and self._epochs() <= self.epochs:
            print(f"not an epoch in {self.ask.minutes} minutes: not tried again; use a longer --time")
            return None
        return DelayedSubmission(self)

    def _gpus(self) -> list[str]:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",") if self.ask.gpus else []

    def _epochs(self) -> int:
        return sum(len(latest(self.results, run_id).epochs()) for run_id in families(self.cells))


def _be_a_rank() -> None:
    """Set the environment as torchrun would: this process's rank, and where the others on this node are."""
    from submitit.helpers import TorchDistributedEnvironment

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    read_with(cores())  # Slurm gives each rank its own cores


def submit(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    ask: Ask,
    *,
    retry_failed: bool = False,
    methods: Sequence[Path] = (),
    rerun: Collection[str] = (),
    worker: Worker | None = None,
) -> dict[str, list[Cell]]:
    """Submit the cells and their ancestors that are neither done nor queued; return them by array.

    Children wait for the end of their parents' arrays; if a parent was interrupted, they continue it first.
    Reruns are begun here and the tasks continue them, so that a requeued task does not start over.

    Args:
        retry_failed, methods, rerun, worker: as in `bench.launch.local.run_grid`.

    Raises:
        BenchError: Slurm or submitit is missing, or Slurm refuses.
    """
    check_commands()
    results, data = results.absolute(), data.absolute()
    files = tuple(file.absolute() for file in methods)
    family = families(cells)
    array_of = {run_id: task.array for run_id, task in queue.queued(results).items()}
    free = [cell for run_id, cell in family.items() if run_id not in array_of]
    made = begin(results, free, rerun, retry_failed=retry_failed)
    asked = pending(results, family)
    needed = frozenset(Results(results).needed(cells, AGAIN, asked))
    known = Results(results).states(family.values(), asked)
    left = [
        cell
        for run_id, cell in family.items()
        if run_id not in array_of and (known[run_id].status in AGAIN or run_id in needed)
    ]
    submitted: dict[str, list[Cell]] = {}
    try:
        for wave in waves(left, queued=set(array_of)):
            after = {array_of[run_id] for run_id in families(wave) if run_id in array_of}
            tasks = [
                Task(tuple(wave[i : i + ask.runs]), results, data, files, ask, worker, needed)
                for i in range(0, len(wave), ask.runs)
            ]
            array = _sbatch(queue.notes(results), ask, tasks, sorted(after))
            queue.note(results, array, [[cell.run_id for cell in task.cells] for task in tasks])
            array_of |= {cell.run_id: array for cell in wave}
            submitted[array] = wave
    except BenchError:
        withdraw(results, set(made) - array_of.keys())
        raise
    return submitted


def waves(cells: Sequence[Cell], queued: Collection[str] = ()) -> list[list[Cell]]:
    """Split cells into generations: parents before children, where queued ancestors count too."""
    coming = {cell.run_id for cell in cells} | set(queued)
    generations: dict[int, list[Cell]] = {}
    for cell in cells:
        generations.setdefault(sum(member.run_id in coming for member in cell.family()), []).append(cell)
    return [generations[number] for number in sorted(generations)]


def follow(
    cells: Sequence[Cell], results: Path, data: Path, *, listen: Listen, seconds: float = 5.0
) -> dict[str, State]:
    """Report the events of the cells and their ancestors to a listener, until none is in the queue.

    The jobs do not depend on it: every few seconds it reads the run directories and Slurm's queue.
    """
    family = families(cells)
    asked = pending(results, family)

    def run_of(run_id: str) -> RunDir:
        return latest(results, run_id) if run_id in asked else RunDir(results, run_id)

    known = Results(results).states(family.values(), asked)
    left = {i: family[i] for i, state in known.items() if state.status not in ENDED}
    reported = {run_id: len(run_of(run_id).epochs()) for run_id in left}
    started: set[str] = set()
    gone: set[str] = set()  # not in the queue when last read
    for cell in left.values():
        listen(cell, "planned", {})
    while left:
        try:
            queued = set(queue.queued(results))
        except BenchError:  # Slurm is busy; its jobs continue
            queued = set(left)
        for run_id, cell in list(left.items()):
            run = run_of(run_id)
            state, record = run.look()
            lines = run.epochs()
            if run_id not in started and (state.status == "running" or len(lines) > reported[run_id]):
                started.add(run_id)
                listen(cell, "started", {})
            for line in lines[reported[run_id] :]:
                listen(cell, "epoch", line)
            reported[run_id] = len(lines)
            waits = state.status == "done" and run_id in asked
            if waits:  # to replace the old run, which its job is about to do
                with contextlib.suppress(Busy, OSError):
                    settle(results, run_id)
                waits = attempt(results, run_id).path.exists()
            if (state.status in ENDED and not waits) or (run_id not in queued and run_id in gone):
                del left[run_id]
                state = Results(results).states(cell.family(), asked)[run_id]
                reached = record if state.status == "done" else None
                listen(cell, state.status, reached or {"reason": state.reason})
            elif run_id not in queued:
                gone.add(run_id)  # its record may appear here a moment later
            else:
                gone.discard(run_id)
        if left:
            time.sleep(seconds)
    return Results(results).states(family.values(), asked)


def check_commands() -> None:
    """Raise a `BenchError` unless Slurm's commands and submitit are installed."""
    if importlib.util.find_spec("submitit") is None:
        raise BenchError('--launcher slurm: submitit is not installed; pip install -e ".[slurm]"')
    for command in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise BenchError(f"--launcher slurm: no {command} here; use it where Slurm's commands are")


def _sbatch(folder: Path, ask: Ask, tasks: Sequence[Callable[[], object]], after: Sequence[str]) -> str:
    """Submit an array and return its id."""
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.SlurmExecutor(folder, max_num_timeout=10**6)  # `checkpoint` decides when to stop
    executor.update_parameters(**ask.parameters(len(tasks), after))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
            first = executor.submit_array(tasks)[0]
    except FailedJobError as error:
        raise BenchError(_refusal(str(error), ask)) from error
    return str(first.job_id).partition("_")[0]


def _refusal(output: str, ask: Ask) -> str:
    """Return Slurm's reason for a refusal, and the remedy if it is known."""
    reason = output.strip().rpartition("\n")[2].removeprefix("sbatch: error: ")
    if "partition" in output and ask.partition:
        partitions = subprocess.run(["sinfo", "-ho", "%R"], capture_output=True, text=True).stdout.split()
        hint = "" if ask.partition in partitions else did_you_mean(ask.partition, partitions)
        return f"--partition {ask.partition}: {reason}{hint}"
    if "array" in output:
        reason += "; a grid of so many tasks needs --runs-per-gpu, or --only for a part of it"
    return f"sbatch: {reason}"
