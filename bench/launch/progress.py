"""What a launcher's runs look like while they go: bars on a terminal, else one line per run that ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.cell import Cell
from bench.launch.local import Listen

#: How an ended run is marked; a status that is not here is told in yellow.
STYLES = {"done": "green", "failed": "bold red", "unreadable": "bold red"}


def name_of(cell: Cell, labels: Mapping[str, str]) -> str:
    """Name a cell for readers: its label in the recipe, if it has one there, and its axes."""
    label = labels.get(cell.run_id, cell.method.name)
    return f"{label} {cell.dataset.name} if{cell.imbalance_factor:g} seed {cell.seed}"


@contextmanager
def watch(labels: Mapping[str, str], console: Console) -> Iterator[Listen]:
    """Give what shows a launcher's events: bars where the console is a terminal, else lines.

    Args:
        labels: how the recipe calls its cells, by run id.
    """
    if console.is_terminal:
        with _Bars(labels, console) as bars:
            yield bars.listen
    else:
        yield lambda cell, event, detail: _tell_end(console, name_of(cell, labels), event, detail)


def _tell_end(console: Console, name: str, event: str, detail: Mapping[str, Any]) -> None:
    """Print one line if the event is an end."""
    if event in ("planned", "started", "epoch"):
        return
    if event == "done":
        accuracy, seconds = detail["metrics"]["accuracy"], detail["timing"]["wall_seconds"]
        told = f"{_percent(accuracy)}  {seconds:.1f} s"
    else:
        told = escape(detail.get("reason") or "")
    style = STYLES.get(event, "yellow")
    console.print(f"[{style}]{event:<11}[/] {escape(name)}  {told}", soft_wrap=True, highlight=False)


def _percent(accuracy: float | None) -> str:
    return "n/a" if accuracy is None else f"{accuracy:.2f} %"


class _Bars:
    """One bar for the whole, counted in epochs, and below it one per run under way."""

    def __init__(self, labels: Mapping[str, str], console: Console) -> None:
        self.labels, self.console = labels, console
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
            _tell_end(self.bars.console, name_of(cell, self.labels), event, detail)

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
