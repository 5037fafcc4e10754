"""Runs in a process of their own: started from a server, watched through a pipe, buried if it dies.

On a core of the CPU a process has one run, on a GPU it drives several in turn. The server has the training
code imported, so that a run starts in half a second; it never touches CUDA, which does not survive a fork.
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
from bench.cores import read_with
from bench.errors import reason_of, traceback_of
from bench.launch.orders import Order, prepare, record
from bench.records import Busy
from bench.registry import load_files
from bench.train.execution import EXECUTE
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

#: A terminal or a cluster sends these to all processes at once; the launcher alone decides what they mean.
SHARED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

#: A process that dies of these has a fault of its own; other signals come from outside.
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

#: The exit code of processes whose end nobody can tell any more; they end when their pipe is closed.
SERVER_DIED = 255


@dataclass(frozen=True)
class Place:
    """Where a process can be: on a core, or on a GPU with `room` for so many runs (None: to be tried).

    Beside a GPU it has some `cores` of its own, which read images.
    """

    gpu: str | None = None
    room: int | None = 1
    cores: int = 1


@dataclass
class Child:
    """A process, and what it runs; it has `room` for so many, and once closed it takes no more."""

    place: Place
    process: ForkServerProcess
    pipe: Connection
    room: int
    orders: dict[str, Order] = field(default_factory=dict)
    closed: bool = False

    def takes_more(self) -> bool:
        """Tell whether it can be given another run now."""
        return not self.closed and len(self.orders) < self.room

    def give(self, order: Order) -> None:
        """Have it run a cell."""
        self.orders[order.cell.run_id] = order
        self._send(order)

    def close(self) -> None:
        """Let it end when its runs have."""
        if not self.closed:
            self.closed = True
            self._send(None)

    def _send(self, order: Order | None) -> None:
        with contextlib.suppress(OSError):  # it is dead, and will be found so
            self.pipe.send(order)

    def hear(self) -> list[tuple[str, str, Any]]:
        """Return the news since: run id, "epoch", "ended" or "crowded", and more of it."""
        news = []
        with contextlib.suppress(EOFError, OSError):  # it closed its end, so it is about to go
            while self.pipe.poll():
                run_id, event, detail = self.pipe.recv()
                if event == "room":
                    self.room = detail
                else:
                    news.append((run_id, event, detail))
        return news

    def bury(self) -> dict[str, str | None]:
        """Say what killed it, now that it is dead: a record's status and reason."""
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
        for order in self.orders.values():
            record(order, status="interrupted", reason="stopped with its launcher")


def starter(worker: Worker) -> Callable[[Place], Child]:
    """Start the server that has the worker's module imported, and return what starts processes from it."""
    context = multiprocessing.get_context("forkserver")
    # what this process needed to look at the cells, each run will need too
    loaded = [name for name in sys.modules if name.startswith("methods.")]
    context.set_forkserver_preload([worker.__module__, *sorted(loaded)])
    _start_server()

    def start(place: Place) -> Child:
        _start_server()  # it may have been killed; without its environment a run has other numbers
        ours, theirs = context.Pipe()
        chosen = os.environ.get(EXECUTE, "")  # the server may be older than the choice
        process = context.Process(target=_serve, args=(worker, place, os.getcwd(), theirs, chosen))
        process.start()
        theirs.close()  # now each side holds one end: when it dies, the other is told
        return Child(place, process, ours, place.room or 1)

    return start


def _start_server() -> None:
    """Start the server, if it does not run yet, in the environment that its runs need."""
    before = dict(os.environ)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SHARED}  # the server inherits it
    # libraries read it when they are loaded; Python 3.11 does not hand on where modules are found
    os.environ |= ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        forkserver.ensure_running()
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _serve(worker: Worker, place: Place, home: str, launcher: Connection, execute: str = "") -> None:
    """Run cells in this process, a step each in turn, until the launcher sends no more of them."""
    for number in SHARED:
        signal.signal(number, signal.SIG_IGN)
    inbox: SimpleQueue[Order | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(launcher, inbox), daemon=True).start()
    os.chdir(home)
    os.environ[EXECUTE] = execute
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
        read_with(place.cores)
    device, room, closed = "cpu" if place.gpu is None else "cuda", place.room, False
    turns = Turns[str](device)

    def tell(run_id: str, event: str, detail: Any = None) -> None:
        try:
            launcher.send((run_id, event, detail))
        except OSError:  # it died this moment, and that is no fault of the run
            os._exit(1)

    while True:
        while not closed and not (turns.runs and inbox.empty()):
            order = inbox.get()
            if order is None:
                closed = True
            else:
                if room is None and (room := _room_for(order, device, tell)) is not None:
                    tell(order.cell.run_id, "room", room)
                turns.add(order.cell.run_id, _run(worker, order, device, room or 1, tell))
        if not turns.runs:
            return
        for run_id, error in turns.turn():
            sound = gpu_answers()
            if not sound:
                tell(run_id, "room", 0)
            if error is None or isinstance(error, Busy):
                tell(run_id, "ended", {})
            elif (room or 1) == 1 or is_own_fault(error) or not (sound or turns.runs):
                tell(run_id, "ended", _told(error))
            elif sound:
                tell(run_id, "crowded")
            if not sound:
                os._exit(1)  # with the runs beside it, if there are: the launcher lets each go on alone
        error = None  # it holds what the run has on the GPU


def _receive(launcher: Connection, inbox: SimpleQueue[Order | None]) -> None:
    """Take in orders; end this process when the launcher dies: nobody would know of runs that go on."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(launcher.recv())
    os._exit(1)


def _room_for(order: Order, device: str, tell: Callable[[str, str, Any], None]) -> int | None:
    """Try for how many runs there is room; None where this one cannot tell, having a fault of its own."""
    from bench.train.trial import runs_at_once

    room = end = None
    try:
        room = runs_at_once(order.cell, order.data, device)
    except Exception as error:
        end = _told(error)  # if the GPU still answers, the run itself will tell
    if gpu_answers():
        return room
    run_id = order.cell.run_id
    tell(run_id, "room", 0)
    if end is not None:
        tell(run_id, "ended", end)
    else:  # it was its copies that memory was short for
        tell(run_id, "crowded", None)
    os._exit(1)


def _run(
    worker: Worker, order: Order, device: str, room: int, tell: Callable[[str, str, Any], None]
) -> Iterator[object]:
    """Run one cell, what it prints going to its log; how it ended is told by its record, or else raised."""
    if not prepare(order):
        return

    def report(line: dict[str, Any]) -> None:
        tell(order.cell.run_id, "epoch", line)

    def steps() -> Iterator[object]:
        load_files(order.methods)
        yield from worker(order.cell, order.folder, order.data, device, report, room)

    with order.run.log.open("ab") as log:
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


def _told(error: Exception) -> dict[str, str | None]:
    return {"status": "failed", "reason": reason_of(error), "traceback": traceback_of(error)}
