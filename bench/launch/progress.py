"""What a launcher's runs look like while they go: bars on a terminal, else lines at a pace to read.

Whatever is there to be seen, a run that ended is told in a line, and one that failed with where it did.
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
from bench.launch.anew import latest
from bench.launch.local import Listen
from bench.records import RunDir

#: How an ended run is marked; a status that is not here is told in yellow.
STYLES = {"done": "green", "stale": "bold red", "failed": "bold red", "unreadable": "bold red"}


def name_of(cell: Cell, labels: Mapping[str, str]) -> str:
    """Name a cell for readers: its label in the recipe, if it has one there, and its axes."""
    label = labels.get(cell.run_id, cell.method.name)
    tail = "" if cell.dataset.profile == "natural" else f" if{cell.imbalance_factor:g}"
    return f"{label} {cell.dataset.name}{tail} seed {cell.seed}"


#: Seconds between two lines about runs that go on, and the last lines of a log that are shown.
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
    """Give what shows a launcher's events: bars where the console is a terminal, else lines.

    Args:
        labels: how the recipe calls its cells, by run id.
        results: where the runs are, for what a failed one left.
        pace: seconds between two lines about runs that go on; `clock` tells them.
    """
    if console.is_terminal:
        with _Bars(labels, console, results) as bars:
            yield bars.listen
    else:
        yield _Lines(labels, console, results, pace, clock).listen


def _tell_end(
    console: Console, name: str, event: str, detail: Mapping[str, Any], run: RunDir | None = None
) -> None:
    """Print one line of a run that ended, and where it failed if it did."""
    if event == "done":
        accuracy, seconds = detail["metrics"]["accuracy"], detail["timing"]["wall_seconds"]
        told = f"{_percent(accuracy)}  {seconds:.1f} s"
    else:
        told = escape(detail.get("reason") or "")
    style = STYLES.get(event, "yellow")
    console.print(f"[{style}]{event:<11}[/] {escape(name)}  {told}", soft_wrap=True, highlight=False)
    for line in _last_words(run) if run and event == "failed" else ():
        console.print(f"            {line}", soft_wrap=True, highlight=False, markup=False)


def _last_words(run: RunDir) -> list[str]:
    """Say where a run failed, or else what it printed last, and where the rest is."""
    record = run.look()[1] or {}
    place = location_of(record.get("traceback"))
    if record.get("traceback") and not place:
        return []  # a mistake of the user, whose reason names the place that counts
    try:
        printed = run.log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        printed = []
    return [*([f"at {place}"] if place else printed[-TAIL:]), *([f"log {run.log}"] if printed else [])]


def _percent(accuracy: float | None) -> str:
    return "n/a" if accuracy is None else f"{accuracy:.2f} %"


class _Lines:
    """A line for each run that ended, and now and then one that says how far all are."""

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
        self.made: int | None = None  # epochs, after the first
        self.ended = 0
        self.running: set[str] = set()
        self.begun = self.told = clock()  # begun: when the first epoch ended, as starting takes long

    def listen(self, cell: Cell, event: str, detail: dict[str, Any]) -> None:
        run_id = cell.run_id
        if event == "planned":
            self.left[run_id] = max(cell.protocol.epochs, 1)
        elif event == "started":
            self.running.add(run_id)
        elif event == "epoch":
            self.left[run_id] = detail["epochs"] - detail["epoch"] - 1
            if self.made is None:
                self.made, self.begun = 0, self.clock()
            else:
                self.made += 1
        else:
            self.running.discard(run_id)
            self.left.pop(run_id, None)
            self.ended += 1
            run = latest(self.results, run_id)
            _tell_end(self.console, name_of(cell, self.labels), event, detail, run)
            return
        if event != "planned" and self.clock() - self.told >= self.pace:
            self._tell()

    def _tell(self) -> None:
        self.told = now = self.clock()
        left = sum(self.left.values())
        told = f"{self.ended} ended, {len(self.running)} running, {len(self.left)} to go, {left} epochs"
        if self.made:
            minutes = left * (now - self.begun) / self.made / 60
            told += f", about {minutes:.0f} min" if minutes >= 1 else ", less than a minute"
        self.console.print(f"[cyan]{'under way':<11}[/] {told}", soft_wrap=True, highlight=False)


class _Bars:
    """One bar for the whole, counted in epochs, and below it one per run under way."""

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
            speed_estimate_period=600,  # runs of unlike length: what the last minute did says little
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
            _tell_end(self.bars.console, name_of(cell, self.labels), event, detail, run)

    def _epoch(self, run_id: str, line: Mapping[str, Any]) -> None:
        left = line["epochs"] - line["epoch"] - 1
        self._grow(left + 1 - self.left[run_id])  # what a resumed run had done before is no work of ours
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
