"""Progress of a launcher's runs: bars on a terminal, else a line now and then.

Both print a line for each run that ended, and for one that failed where it did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.cell import Cell
from bench.errors import location_of
from bench.launch.local import Listen
from bench.launch.rerun import latest
from bench.rundir import RunDir

#: The colour of a run's final status; any other status is yellow.
STYLES = {"done": "green", "stale": "bold red", "failed": "bold red", "unreadable": "bold red"}


def name_of(cell: Cell, labels: Mapping[str, str]) -> str:
    """Name a cell for readers: its label in the recipe, if it has one, and its axes."""
    label = labels.get(cell.run_id, cell.method.name)
    tail = "" if cell.dataset.profile == "natural" else f" if{cell.imbalance_factor:g}"
    return f"{label} {cell.dataset.name}{tail} seed {cell.seed}"


#: Seconds between two progress lines; lines shown from the end of a failed run's log.
PACE, TAIL = 30.0, 3


@contextmanager
def watch(
    labels: Mapping[str, str],
    console: Console,
    results: Path,
    *,
    pace: float = PACE,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Listen]:
    """Yield a listener that shows a launcher's events: as bars if the console is a terminal, else as lines.

    Args:
        labels: the recipe's labels of the cells, by run id.
        results: where the runs are, for the log of one that failed.
        pace: seconds between two progress lines, measured by `clock`.
    """
    if console.is_terminal:
        with _Bars(labels, console, results) as bars:
            yield bars.listen
    else:
        yield _Lines(labels, console, results, pace, clock).listen


def _print_end(
    console: Console, name: str, event: str, detail: Mapping[str, Any], run: RunDir | None = None
) -> None:
    """Print a line for a run that ended, and where it failed if it did."""
    if event == "done":
        accuracy, seconds = detail["metrics"]["accuracy"], detail["timing"]["wall_seconds"]
        result = f"{_percent(accuracy)}  {seconds:.1f} s"
    else:
        result = escape(detail.get("reason") or "")
    style = STYLES.get(event, "yellow")
    console.print(f"[{style}]{event:<11}[/] {escape(name)}  {result}", soft_wrap=True, highlight=False)
    for line in _failure(run) if run and event == "failed" else ():
        console.print(f"            {line}", soft_wrap=True, highlight=False, markup=False)


def _failure(run: RunDir) -> list[str]:
    """Return where a run failed, or else what it printed last, and the path of its log."""
    record = run.look()[1] or {}
    location = location_of(record.get("traceback"))
    if record.get("traceback") and not location:
        return []  # a user's mistake: the reason names the location
    try:
        printed = run.log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        printed = []
    return [*([f"at {location}"] if location else printed[-TAIL:]), *([f"log {run.log}"] if printed else [])]


def _percent(accuracy: float | None) -> str:
    return "n/a" if accuracy is None else f"{accuracy:.2f} %"


class _Lines:
    """A line for each run that ended, and now and then one on the progress of all."""

    def __init__(
        self,
        labels: Mapping[str, str],
        console: Console,
        results: Path,
        pace: float,
        clock: Callable[[], float],
    ) -> None:
        self.labels, self.console, self.results, self.pace, self.clock = labels, console, results, pace, clock
        self.left: dict[str, int] = {}  # epochs to go, by run id
        self.done: int | None = None  # epochs, after the first
        self.ended = 0
        self.running: set[str] = set()
        self.begun = self.printed = clock()  # begun: when the first epoch ended, as starting takes long

    def listen(self, cell: Cell, event: str, detail: dict[str, Any]) -> None:
        run_id = cell.run_id
        if event == "planned":
            self.left[run_id] = max(cell.protocol.epochs, 1)
        elif event == "started":
            self.running.add(run_id)
        elif event == "epoch":
            self.left[run_id] = detail["epochs"] - detail["epoch"] - 1
            if self.done is None:
                self.done, self.begun = 0, self.clock()
            else:
                self.done += 1
        else:
            self.running.discard(run_id)
            self.left.pop(run_id, None)
            self.ended += 1
            run = latest(self.results, run_id)
            _print_end(self.console, name_of(cell, self.labels), event, detail, run)
            return
        if event != "planned" and self.clock() - self.printed >= self.pace:
            self._print_progress()

    def _print_progress(self) -> None:
        self.printed = now = self.clock()
        left = sum(self.left.values())
        text = f"{self.ended} ended, {len(self.running)} running, {len(self.left)} to go, {left} epochs"
        if self.done:
            minutes = left * (now - self.begun) / self.done / 60
            text += f", about {minutes:.0f} min" if minutes >= 1 else ", less than a minute"
        self.console.print(f"[cyan]{'under way':<11}[/] {text}", soft_wrap=True, highlight=False)


class _Bars:
    """One bar for all runs, counted in epochs, and below it one per running run."""

    def __init__(self, labels: Mapping[str, str], console: Console, results: Path) -> None:
        self.labels, self.console, self.results = labels, console, results
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            speed_estimate_period=600,  # runs of unlike length: the last minute is no estimate
        )
        self.whole = self.bars.add_task("all runs", total=0, note="")
        self.runs: dict[str, TaskID] = {}
        self.left: dict[str, int] = {}  # epochs to go, by run id
        self.ended = 0

    def __enter__(self) -> _Bars:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def listen(self, cell: Cell, event: str, detail: dict[str, Any]) -> None:
        run_id = cell.run_id
        if event == "planned":
            self.left[run_id] = max(cell.protocol.epochs, 1)
            self._grow(self.left[run_id])
        elif event == "started":
            name = escape(name_of(cell, self.labels))
            self.runs[run_id] = self.bars.add_task(name, total=cell.protocol.epochs, note="starting")
        elif event == "epoch":
            self._epoch(run_id, detail)
        else:
            self._end(run_id)
            run = latest(self.results, run_id)
            _print_end(self.bars.console, name_of(cell, self.labels), event, detail, run)

    def _epoch(self, run_id: str, line: Mapping[str, Any]) -> None:
        left = line["epochs"] - line["epoch"] - 1
        self._grow(left + 1 - self.left[run_id])  # epochs done before a resume are not counted
        self.left[run_id] = left
        self.bars.advance(self.whole)
        note = f"loss {line['loss']:.3f}"
        if line.get("accuracy") is not None:
            note += f", {_percent(line['accuracy'])}"
        self.bars.update(self.runs[run_id], completed=line["epoch"] + 1, note=note)

    def _end(self, run_id: str) -> None:
        left = self.left.pop(run_id, 0)
        if run_id in self.runs:
            self.bars.remove_task(self.runs.pop(run_id))
        self._grow(-left)
        self.ended += 1
        self.bars.update(self.whole, note=f"{self.ended} ended, {len(self.left)} to go")

    def _grow(self, epochs: int) -> None:
        self.bars.update(self.whole, total=(self.bars.tasks[0].total or 0) + epochs)
