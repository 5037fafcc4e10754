"""Fake runs for tests of faults, in a module that is light to import: every process of a run imports it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.cell import BackboneChoice, Cell, DataSet, MethodChoice, Protocol
from bench.loggers import Logger, Started, Wanted
from bench.rundir import RunDir

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


def telling_run(
    cell: Cell, results: Path, data: Path, device: str, report: Callable[[dict[str, Any]], None], at_once: int
) -> Iterator[None]:
    """Do as `hasty_run`, and tell the epochs."""
    for epoch, _ in enumerate(hasty_run(cell, results, data, device, report, at_once)):
        report({"epoch": epoch, "epochs": EPOCHS, "loss": 1.0, "lr": 0.1})
        yield


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


# -- loggers -----------------------------------------------------------------------------------------
class Fake(Logger):
    """A logger that writes what it is reported to a file, and may misbehave."""

    package = "json"

    def __init__(self, does: str) -> None:
        self.does = does

    def start(self, run: Started) -> None:
        self.file = run.home.parent / f"{run.run_id}.txt"
        print("a noise that belongs to no terminal")

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        if self.does == "raise":
            raise RuntimeError("no such server\nand more")
        if self.does == "die":
            os._exit(7)
        if self.does == "hang":
            time.sleep(3600)
        with self.file.open("a") as file:
            file.write(f"{epoch} {values['loss']}\n")

    def end(self, status: str, values: Mapping[str, float]) -> None:
        with self.file.open("a") as file:
            file.write(status)


class Faked(Wanted):
    """Makes such loggers."""

    def make(self) -> Logger:
        return Fake(self.options["does"])


def fake_logger(does: str) -> Wanted:
    """A logger that does well, or in each epoch what `does` says: raise, die, hang."""
    return Faked("tensorboard", {"does": does})
