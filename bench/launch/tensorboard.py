"""The curves of runs for TensorBoard, written from what the launcher hears."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.errors import BenchError
from bench.launch.anew import latest
from bench.launch.local import Listen


def curves(results: Path, listen: Listen) -> Listen:
    """Return a listener that also writes each run's events/ folder.

    Raises:
        BenchError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BenchError("--tensorboard: not installed; pip install tensorboard") from None
    writers: dict[str, Any] = {}

    def both(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        with suppress(OSError):  # a full disk costs the curves and no run
            write(cell, event, detail)
        listen(cell, event, detail)

    def write(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        if event == "epoch":
            if cell.run_id not in writers:
                events = latest(results, cell.run_id).path / "events"
                # what an interrupted run wrote beyond its checkpoint is taken back
                writers[cell.run_id] = SummaryWriter(str(events), purge_step=detail["epoch"])
            for name in ("loss", "accuracy", "lr"):
                if detail.get(name) is not None:
                    writers[cell.run_id].add_scalar(name, detail[name], detail["epoch"])
        elif cell.run_id in writers:
            writers.pop(cell.run_id).close()

    return both
