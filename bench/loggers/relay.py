"""Passes the launcher's events to the loggers, each in a process of its own.

The launcher never waits for a logger: a thread sends the events. What a logger raises becomes one line for
the user. When all runs have ended, a logger that does not finish in time is stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bench.cell import Cell
from bench.errors import reason_of
from bench.loggers import Logger, Started, Wanted, describe

if TYPE_CHECKING:
    from bench.launch.local import Listen  # which imports torch, and a logger's process does without

#: Seconds that loggers have to finish after the last run has ended.
LIMIT = 60.0

#: Shows the user one line.
Warn = Callable[[str], None]


@contextmanager
def noted(
    wanted: Sequence[Wanted],
    results: Path,
    labels: Mapping[str, str],
    listen: Listen,
    warn: Warn,
    limit: float = LIMIT,
) -> Iterator[Listen]:
    """Yield a listener that passes events to the loggers and then to `listen`.

    Args:
        labels: the recipe's labels of the cells, by run id.
        warn: called once for each logger that failed or was stopped.
        limit: seconds that all of them together have at the end.
    """
    if not wanted:
        yield listen
        return
    from bench.launch.rerun import latest  # here, as a logger's process does without it

    relays = [_Relay(logger, results, warn) for logger in wanted]
    first: dict[str, Cell] = {}  # runs that started and have finished no epoch

    def start(cell: Cell, epoch: int) -> None:
        label = labels.get(cell.run_id, cell.method.name)
        group = f"{cell.dataset.name}-if{cell.imbalance_factor:g}-{label}"
        home = (results / "loggers").absolute()  # not the run's folder, which may be moved when it is done
        run = Started(cell.run_id, group, {"label": label, **describe(cell)}, epoch, home)
        for relay in relays:
            relay.send("start", cell.run_id, run)

    under_way: set[str] = set()

    def both(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        run_id = cell.run_id
        if event == "started":
            first[run_id] = cell
        elif event != "planned":
            if run_id in first:  # only now its first epoch is known
                ended = detail["epoch"] if event == "epoch" else len(latest(results, run_id).epochs())
                start(first.pop(run_id), ended)
                under_way.add(run_id)
            if run_id in under_way:
                values = _numbers(detail) if event == "epoch" else _results(detail)
                for relay in relays:
                    if event == "epoch":
                        relay.send("epoch", run_id, detail["epoch"], values)
                    else:
                        relay.send("end", run_id, event, values)
            if event != "epoch":
                under_way.discard(run_id)
        listen(cell, event, detail)

    with ExitStack() as stack:
        stack.callback(_close, relays, limit)
        yield both


def _close(relays: Sequence[_Relay], limit: float) -> None:
    for relay in relays:
        relay.finish()
    until = time.monotonic() + limit
    try:
        for relay in relays:
            relay.wait(max(0.0, until - time.monotonic()), limit)
    finally:
        for relay in relays:
            relay.kill()  # after Ctrl-C


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in an epoch's line."""
    return {
        name: float(value)
        for name, value in line.items()
        if isinstance(value, int | float) and name not in ("epoch", "epochs")
    }


def _results(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics in the record of a finished run."""
    values = {f"final/{name}": value for name, value in _numbers(record.get("metrics") or {}).items()}
    best = (record.get("best_on_test") or {}).get("accuracy")
    return values if best is None else values | {"final/best_on_test": float(best)}


class _Relay:
    """The launcher's end of one logger, whose process starts with the first message."""

    def __init__(self, wanted: Wanted, results: Path, warn: Warn) -> None:
        self.wanted, self.warn = wanted, warn
        self.prints = results / "loggers" / f"{wanted.name}.txt"
        self.inbox: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self.process: multiprocessing.process.BaseProcess | None = None
        self.failed = False

    def send(self, *message: Any) -> None:
        """Send a message to the logger, without waiting."""
        if self.process is None:
            self._start()
        self.inbox.put(message)
        self._receive()

    def finish(self) -> None:
        """Send that nothing follows."""
        self.inbox.put(None)

    def wait(self, seconds: float, limit: float) -> None:
        """Wait for the logger to end, and warn if it does not."""
        if self.process is None:
            return
        self.process.join(seconds)
        self._receive()
        if self.process.is_alive():
            self._warn(f"was not done after {limit:g} seconds, and is given up")
        elif self.process.exitcode:
            self._warn(f"its process ended with exit code {self.process.exitcode}")
        self.kill()

    def kill(self) -> None:
        """Kill its process and the processes that it started."""
        if self.process is None:
            return
        if self.process.is_alive():
            assert self.process.pid
            with suppress(ProcessLookupError):  # not yet its own group
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
            self.process.join()
        self.process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        with suppress(OSError):  # as of a full disk
            self.prints.parent.mkdir(parents=True, exist_ok=True)
        arguments = (self.wanted.make, str(self.prints), theirs)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        threading.Thread(target=_feed, args=(self.inbox, self.pipe), daemon=True).start()

    def _receive(self) -> None:
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                self._warn(self.pipe.recv())

    def _warn(self, problem: str) -> None:
        if not self.failed:
            more = f"; all of it is in {self.prints}" if self.prints.exists() else ""
            self.warn(f"--log {self.wanted.name}: {problem}; the runs are not touched by it{more}")
        self.failed = True


def _feed(inbox: SimpleQueue[tuple[Any, ...] | None], pipe: Connection) -> None:
    """Send the messages, as fast as the logger takes them."""
    with suppress(OSError):  # its process is dead
        while (message := inbox.get()) is not None:
            pipe.send(message)
        pipe.send(None)


def _serve(make: Callable[[], Logger], prints: str, pipe: Connection) -> None:
    """Log what the launcher sends, until nothing follows or the launcher is dead."""
    with suppress(OSError):
        os.setsid()  # Ctrl-C goes to the launcher alone; a logger's own processes are killed with it
    _print_to(prints)
    runs: dict[str, Logger] = {}
    with suppress(EOFError, OSError):
        while (message := pipe.recv()) is not None:
            what, run_id, *details = message
            try:
                if what == "start":
                    runs[run_id] = make()
                    runs[run_id].start(*details)
                elif run_id in runs and what == "epoch":
                    runs[run_id].epoch(*details)
                elif run_id in runs:
                    runs.pop(run_id).end(*details)
            except Exception as error:  # of any kind; other runs may be logged without error
                runs.pop(run_id, None)
                traceback.print_exc()
                pipe.send((reason_of(error).strip().splitlines() or [""])[0])
    for left in runs.values():
        with suppress(Exception):
            left.end("interrupted", {})


def _print_to(file: str) -> None:
    """Redirect all output of this process, that of libraries too, to a file, or else discard it."""
    for path in (file, os.devnull):
        with suppress(OSError):
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(target, stream)
            return
