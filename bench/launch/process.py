"""One run as a process of its own: started from a server, watched through a pipe, buried if it dies.

The server has the training code imported, so that a run starts in half a second; it never touches CUDA,
which does not survive a fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.errors import BenchError
from bench.records import Busy, RunDir
from bench.registry import load_files

#: Trains a cell and writes its record: (cell, results, data, device, report), as `train.run.run_cell`.
Worker = Callable[[Cell, Path, Path, str, Callable[[dict[str, Any]], None]], None]

#: One thread per run: two runs of one thread do three times the work of one run of two. Freed memory is
#: kept by the process, which saves up to 15 % of a run in page faults.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**29),
}

#: A process that dies of these has a fault of its own; other signals come from outside.
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

#: How a run ended badly: it is not tried again unless that is asked for, and then from the start.
BAD = frozenset({"failed", "unreadable"})


@dataclass(frozen=True)
class Order:
    """One cell to run, with all that its process needs to know.

    `again` are the states of a run from which it is taken up, `forced` takes it up from any.
    """

    cell: Cell
    results: Path
    data: Path
    again: frozenset[str]
    forced: bool = False
    methods: tuple[Path, ...] = ()
    gpu: str | None = None

    @property
    def run(self) -> RunDir:
        """The run's directory."""
        return RunDir(self.results, self.cell.run_id)

    def wants(self, status: str) -> bool:
        """Tell whether a run of this state is to be taken up."""
        return self.forced or status in self.again


@dataclass
class Child:
    """A run under way; `error` is what it could not write into a record of its own."""

    order: Order
    process: ForkServerProcess
    news: Connection
    error: dict[str, str] = field(default_factory=dict)

    def hear(self) -> list[dict[str, Any]]:
        """Return the lines of the epochs that have ended since."""
        lines = []
        with contextlib.suppress(EOFError, OSError):  # it closed its end, so it is about to go
            while self.news.poll():
                news = self.news.recv()
                if "traceback" in news:
                    self.error = news
                else:
                    lines.append(news)
        return lines

    def bury(self) -> str | None:
        """See to it that the run, now dead, has a record if it needs one, and return what killed it."""
        self.process.join()
        code = self.process.exitcode or 0
        if self.error:
            return self._record("failed", **self.error)
        if code < 0:
            status = "failed" if -code in CRASHES else "interrupted"
            hint = "; was memory short?" if -code == signal.SIGKILL else ""
            return self._record(status, f"killed by signal {-code} ({signal.strsignal(-code)}){hint}")
        if code > 0:
            log = self.order.run.log.name
            return self._record("failed", f"its process ended with exit code {code}; see its {log}")
        return None

    def stop(self) -> None:
        """End the process at once; the next launcher resumes the run from its checkpoint."""
        self.process.terminate()
        self.process.join(5)
        self.process.kill()
        self.process.join()
        self._record("interrupted", "stopped with its launcher")

    def _record(self, status: str, reason: str, traceback: str | None = None) -> str:
        run, cell = self.order.run, self.order.cell
        with contextlib.suppress(Busy, OSError), run.lock():  # taken up elsewhere; or the disk is full
            if _recorded(run) not in ("done", "failed"):
                run.write_cell(cell)
                run.write_record(
                    {
                        "status": status,
                        "reason": reason,
                        "traceback": traceback,
                        "cell": cell.model_dump(mode="json"),
                    }
                )
        return reason


def starter(worker: Worker) -> Callable[[Order], Child]:
    """Start the server that has the worker's module imported, and return what starts runs from it."""
    context = multiprocessing.get_context("forkserver")
    # what this process needed to look at the cells and their data, each run will need too
    loaded = [name for name in sys.modules if name.startswith("methods.") or name == "sklearn.datasets"]
    context.set_forkserver_preload([worker.__module__, *sorted(loaded)])
    _start_server()

    def start(order: Order) -> Child:
        ours, theirs = context.Pipe()
        process = context.Process(target=_run, args=(worker, order, os.getcwd(), theirs))
        process.start()
        theirs.close()  # now each side holds one end: when it dies, the other is told
        return Child(order, process, ours)

    return start


def _start_server() -> None:
    """Start the server, if it does not run yet, in the environment that its runs need."""
    before = dict(os.environ)
    on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the server inherits
    # libraries read it when they are loaded; Python 3.11 does not hand on where modules are found
    os.environ |= ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        forkserver.ensure_running()
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before
        signal.signal(signal.SIGINT, on_ctrl_c)


def _run(worker: Worker, order: Order, home: str, launcher: Connection) -> None:
    """Run one cell in this process; how it ended is told by its record, or else to the launcher."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher too, which decides
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    os.chdir(home)
    if order.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.gpu

    def report(news: dict[str, Any]) -> None:
        try:
            launcher.send(news)
        except OSError:  # it died this moment, and that is no fault of the run
            os._exit(1)

    try:
        if _prepare(order):
            load_files(order.methods)
            device = "cpu" if order.gpu is None else "cuda"
            worker(order.cell, order.results, order.data, device, report)
    except Busy:
        return
    except Exception as error:
        reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        where = re.sub(r'File ".*/', 'File "', traceback.format_exc())  # no paths of this machine
        report({"reason": reason, "traceback": where})


def _end_with(launcher: Connection) -> None:
    """End this process when the launcher dies: nobody would know of a run that goes on."""
    with contextlib.suppress(EOFError, OSError):
        launcher.recv()  # it never sends anything
    os._exit(1)


def _prepare(order: Order) -> bool:
    """Look again, now that nobody else can be at it, whether to run; clear what is started over."""
    run = order.run
    with run.lock():
        status = _recorded(run)
        if not order.wants(status):
            return False
        if order.forced or status in BAD:
            for file in (run.checkpoint, run.epoch_lines, run.weights, run.logits, run.log):
                file.unlink(missing_ok=True)
            if run.record.exists():
                run.record.rename(run.path / ".record.previous.json")
        with run.log.open("ab") as log:
            for stream in (1, 2):  # whatever is printed from here on, by C libraries too
                os.dup2(log.fileno(), stream)
    return True


def _recorded(run: RunDir) -> str:
    """Return the status in the record, whoever holds the lock."""
    if not run.record.exists():
        return "missing"
    try:
        return str(run.read_record()["status"])
    except BenchError:
        return "unreadable"
