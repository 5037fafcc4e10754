"""Processes that carry out runs: started from a server, watched through a pipe.

On a CPU core a process has one run; on a GPU it drives several in turn. The server has imported the training
code, so that a run starts in half a second. It never touches CUDA, which does not survive a fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bench.cell import Cell
from bench.cores import WORKERS, read_with
from bench.errors import reason_of, traceback_of
from bench.launch.jobs import Job, prepare, record
from bench.registry import load_files
from bench.rundir import Busy
from bench.train.compiled import COMPILE
from bench.train.interleave import Turns, gpu_answers, is_own_fault

#: Trains a cell, yielding after each step, and writes its record: (cell, results, data, device, report, how
#: many runs the process drives at once), as `train.run.steps`.
Worker = Callable[[Cell, Path, Path, str, Callable[[dict[str, Any]], None], int], Iterator[object]]

#: One thread per run: two runs of one thread do three times the work of one run of two. Freed memory is
#: kept by the process, which saves up to 15 % of a run in page faults.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**29),
}

#: A terminal or a cluster sends these to all processes at once; only the launcher handles them.
SHARED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

#: A process that dies of these is itself at fault; other signals come from outside.
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

#: The exit code where the server died and the real one is lost; the process ends when its pipe is closed.
SERVER_DIED = 255


@dataclass(frozen=True)
class Slot:
    """A core, or a GPU with room for several runs (None: found by a trial) and cores that read images."""

    gpu: str | None = None
    room: int | None = 1
    cores: int = 1


@dataclass
class Child:
    """A process and its runs, at most `room` of them; once closed it takes no more."""

    slot: Slot
    process: ForkServerProcess
    pipe: Connection
    room: int
    jobs: dict[str, Job] = field(default_factory=dict)
    closed: bool = False

    def has_room(self) -> bool:
        """Whether it can take another run now."""
        return not self.closed and len(self.jobs) < self.room

    def give(self, job: Job) -> None:
        """Give it a run."""
        self.jobs[job.cell.run_id] = job
        self._send(job)

    def close(self) -> None:
        """Let it end after its runs."""
        if not self.closed:
            self.closed = True
            self._send(None)

    def _send(self, job: Job | None) -> None:
        with contextlib.suppress(OSError):  # it is dead, as the launcher will see
            self.pipe.send(job)

    def receive(self) -> list[tuple[str, str, Any]]:
        """Return new messages: run id; "epoch", "ended" or "crowded"; details."""
        messages = []
        with contextlib.suppress(EOFError, OSError):  # it closed its end, so it is about to end
            while self.pipe.poll():
                run_id, event, detail = self.pipe.recv()
                if event == "room":
                    self.room = detail
                else:
                    messages.append((run_id, event, detail))
        return messages

    def reap(self) -> dict[str, str | None]:
        """Join the dead process, and return the status and reason for the records of its runs."""
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        if code == SERVER_DIED:
            return {"status": "interrupted", "reason": "the server that its process came from died"}
        if code >= 0:
            return {"status": "failed", "reason": f"its process ended with exit code {code}; see its log.txt"}
        status = "failed" if -code in CRASHES else "interrupted"
        hint = "; was memory short?" if -code == signal.SIGKILL else ""
        return {"status": status, "reason": f"killed by signal {-code} ({signal.strsignal(-code)}){hint}"}

    def stop(self) -> None:
        """End the process at once; the next launcher resumes its runs from their checkpoints."""
        self.process.kill()
        self.process.join()
        for job in self.jobs.values():
            record(job, status="interrupted", reason="stopped with its launcher")


def starter(worker: Worker) -> Callable[[Slot], Child]:
    """Start the server, with the worker's module imported, and return what starts processes from it."""
    context = multiprocessing.get_context("forkserver")
    # each run will need the methods that this process needed
    loaded = [name for name in sys.modules if name.startswith("methods.")]
    context.set_forkserver_preload([worker.__module__, *sorted(loaded)])
    _start_server()

    def start(slot: Slot) -> Child:
        _start_server()  # it may have been killed; without its environment a run would have other numbers
        ours, theirs = context.Pipe()
        compiled = os.environ.get(COMPILE, "")  # the server may be older than the choice
        process = context.Process(target=_serve, args=(worker, slot, os.getcwd(), theirs, compiled))
        process.start()
        theirs.close()  # now each side holds one end, and notices when the other dies
        return Child(slot, process, ours, slot.room or 1)

    return start


def _start_server() -> None:
    """Start the server, unless it runs already, in the environment that its runs need."""
    before = dict(os.environ)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SHARED}  # the server inherits it
    # libraries read it when they are loaded; Python 3.11 does not pass on sys.path
    os.environ |= ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        forkserver.ensure_running()
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _serve(worker: Worker, slot: Slot, home: str, launcher: Connection, compiled: str) -> None:
    """Run cells in this process, a step each in turn, until the launcher sends no more."""
    for number in SHARED:
        signal.signal(number, signal.SIG_IGN)
    inbox: SimpleQueue[Job | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(launcher, inbox), daemon=True).start()
    os.chdir(home)
    os.environ[COMPILE] = compiled
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
        chosen = WORKERS in os.environ  # by the user
        read_with(slot.cores // (slot.room or 1))
    device, room, closed = "cpu" if slot.gpu is None else "cuda", slot.room, False
    turns = Turns[str](device)

    def send(run_id: str, event: str, detail: Any = None) -> None:
        try:
            launcher.send((run_id, event, detail))
        except OSError:  # it has just died, which is not the run's fault
            os._exit(1)

    while True:
        while not closed and not (turns.runs and inbox.empty()):
            job = inbox.get()
            if job is None:
                closed = True
            else:
                if room is None and (room := _room_for(job, device, send)) is not None:
                    send(job.cell.run_id, "room", room)
                    if slot.gpu is not None and not chosen:
                        del os.environ[WORKERS]
                        read_with(slot.cores // room)
                turns.add(job.cell.run_id, _run(worker, job, device, room or 1, send))
        if not turns.runs:
            return
        for run_id, error in turns.turn():
            works = gpu_answers()
            if not works:
                send(run_id, "room", 0)
            if error is None or isinstance(error, Busy):
                send(run_id, "ended", {})
            elif (room or 1) == 1 or is_own_fault(error) or not (works or turns.runs):
                send(run_id, "ended", _failure(error))
            elif works:
                send(run_id, "crowded")
            if not works:
                os._exit(1)  # together with the runs beside it, which the launcher continues one by one
        error = None  # it refers to the run's tensors on the GPU


def _receive(launcher: Connection, inbox: SimpleQueue[Job | None]) -> None:
    """Receive jobs; end this process when the launcher dies, or its runs would continue unnoticed."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(launcher.recv())
    os._exit(1)


def _room_for(job: Job, device: str, send: Callable[[str, str, Any], None]) -> int | None:
    """Find by a trial how many runs fit; None if the trial fails because of the run itself."""
    from bench.train.trial import runs_at_once

    room = end = None
    try:
        room = runs_at_once(job.cell, job.data, device)
    except Exception as error:
        end = _failure(error)  # if the GPU still answers, the run itself will fail with it
    if gpu_answers():
        return room
    run_id = job.cell.run_id
    send(run_id, "room", 0)
    if end is not None:
        send(run_id, "ended", end)
    else:  # memory was short for its copies
        send(run_id, "crowded", None)
    os._exit(1)


def _run(
    worker: Worker, job: Job, device: str, room: int, send: Callable[[str, str, Any], None]
) -> Iterator[object]:
    """Run one cell, its output going to its log; what its record cannot say is raised."""
    if not prepare(job):
        return

    def report(line: dict[str, Any]) -> None:
        send(job.cell.run_id, "epoch", line)

    def steps() -> Iterator[object]:
        load_files(job.methods)
        yield from worker(job.cell, job.folder, job.data, device, report, room)

    with job.run.log.open("ab") as log:
        under_way = steps()
        while True:
            for stream in (1, 2):  # whatever is printed in this run's turn, by C libraries too
                os.dup2(log.fileno(), stream)
            try:
                next(under_way)
            except StopIteration:
                return
            finally:
                sys.stdout.flush()
            yield None


def _failure(error: Exception) -> dict[str, str | None]:
    return {"status": "failed", "reason": reason_of(error), "traceback": traceback_of(error)}
