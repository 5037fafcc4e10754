"""Fake runs for tests of faults, in a module that is light to import: every process of a run imports it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.cell import BackboneChoice, Cell, DataSet, MethodChoice, Protocol
from bench.records import RunDir

EPOCHS = 2


def make(name: str, does: str = "well", parent: Cell | None = None, **more: Any) -> Cell:
    """A cell whose fake run behaves as `does` says."""
    return Cell(
        method=MethodChoice(name=name, params={"does": does}, changed=("does",)),
        dataset=DataSet(name="digits", source="digits"),
        imbalance_factor=10.0,
        backbone=BackboneChoice(name="resnet8_cifar"),
        protocol=Protocol(epochs=EPOCHS),
        parent=parent,
        **more,
    )


def hasty_run(
    cell: Cell, results: Path, data: Path, device: str, report: Callable[[dict[str, Any]], None], at_once: int
) -> Iterator[None]:
    """Do as `bench.train.run.steps`, without training, and with trouble while there is no file data/heal."""
    run = RunDir(results, cell.run_id)
    with run.lock():
        if run.is_done():
            return
        run.write_cell(cell)
        with (data / "starts").open("a") as file:
            file.write(f"{cell.run_id}\n")
        does = "well" if (data / "heal").exists() else str(cell.method.params["does"])
        for epoch in range(EPOCHS):
            line = {"epoch": epoch, "epochs": EPOCHS, "loss": 1.0, "lr": 0.1}
            run.append_epoch(line)
            if does == "wait":
                (data / "server").write_text(str(os.getppid()))
                report(line)
                time.sleep(60)
            yield
            _meet(does, results)
        content = {"cell": cell.model_dump(mode="json"), "status": "done", "reason": None}
        if does == "fail":
            content |= {"status": "failed", "reason": "it had to", "traceback": "Traceback ..."}
        now = {"finished": "2026-01-02T03:04:05+00:00", "wall_seconds": 0.0}  # all in the same second
        content |= {"metrics": {"accuracy": float(cell.seed)}, "timing": now}
        run.write_record(content | {"environment": {"threads": os.environ.get("MKL_NUM_THREADS")}})


def _meet(does: str, results: Path) -> None:
    match does:
        case "raise":
            raise OSError("no space left")
        case "exit":
            os._exit(3)
        case "SIGSEGV":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "break the disk":
            subprocess.run(["mount", "-o", "remount,abort", str(results)], check=True)


def starts(data: Path) -> list[str]:
    """Return which runs were started, in this order."""
    return (data / "starts").read_text().split() if (data / "starts").exists() else []
