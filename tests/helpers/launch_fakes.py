"""Runs of the launcher that train nothing, and go wrong as their cell says."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.cell import BackboneChoice, Cell, DataSet, MethodChoice, Protocol
from bench.rundir import RunDir, State

EPOCHS = 4


def make(name: str, does: str = "well", parent: Cell | None = None, **more: Any) -> Cell:
    """A cell whose fake run behaves as `does` says."""
    return Cell(
        method=MethodChoice(name=name, params={"does": does}),
        dataset=DataSet(name="digits", source="digits"),
        imbalance_factor=10.0,
        backbone=BackboneChoice(name="resnet8_cifar"),
        protocol=Protocol(epochs=EPOCHS),
        parent=parent,
        **more,
    )


def fake_run(
    cell: Cell, results: Path, data: Path, device: str, report: Callable[[dict[str, Any]], None], at_once: int
) -> Iterator[None]:
    """Do as `bench.train.run.steps` does, without training; trouble goes as the cell's `does` says.

    With a file data/heal there, nothing goes wrong any more. The epochs' lines are the checkpoint.
    """
    run = RunDir(results, cell.run_id)
    with run.lock():
        if run.record.exists() and run.read_record()["status"] == "done":
            return  # another launcher was faster
        run.write_cell(cell)
        note(data, "starts", cell.run_id)
        does = "well" if (data / "heal").exists() else str(cell.method.params["does"])
        print("printed by", cell.method.name)
        if does == "slow":
            note(data, "slow", cell.run_id)
            time.sleep(60)
        elsewhere = does == "fits elsewhere" and os.environ.get("CUDA_VISIBLE_DEVICES") == "0"
        if elsewhere or does == "fits nowhere":
            short = {"status": "failed", "reason": "memory ran out", "own_fault": False}
            run.write_record(short | {"cell": cell.model_dump(mode="json"), "traceback": None})
            return
        first = len(run.epochs())
        for epoch in range(first, EPOCHS):
            line = {"epoch": epoch, "epochs": EPOCHS, "loss": 1.0, "accuracy": 50.0 + epoch, "lr": 0.1}
            run.append_epoch(line)
            report(line)
            if epoch == 1:
                trouble(does)
            time.sleep(0.02)
            yield
        content = {"cell": cell.model_dump(mode="json"), "status": "done", "reason": None}
        if does == "fail":
            content |= {"status": "failed", "reason": "it had to", "traceback": "Traceback ..."}
        environment = {"device": device, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
        environment |= {
            "threads": os.environ["OMP_NUM_THREADS"],
            "readers": os.environ.get("LONGTAIL_WORKERS"),
        }
        metrics = {"accuracy": 53.0, "first_epoch": first}
        run.write_record(
            content | {"metrics": metrics, "timing": {"wall_seconds": 0.1}, "environment": environment}
        )
        note(data, "ends", cell.run_id)


def trouble(does: str) -> None:
    if does == "raise":
        raise OSError("no space left")
    if does == "exit":
        os._exit(3)
    if does in ("SIGKILL", "SIGSEGV"):
        os.kill(os.getpid(), getattr(signal, does))


def note(data: Path, what: str, run_id: str) -> None:
    with (data / what).open("a") as file:
        file.write(f"{run_id}\n")


def notes(data: Path, what: str) -> list[str]:
    return (data / what).read_text().split() if (data / what).exists() else []


def statuses(states: dict[str, State]) -> Counter[str]:
    return Counter(state.status for state in states.values())
