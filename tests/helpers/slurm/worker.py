"""What trains in the tests of the cluster: as always, on the CPU, but it stops where a test wants it to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.launch.slurm import Task
from bench.rundir import RunDir
from bench.train.run import steps

#: While data/hold is there, runs wait when they have done so many epochs.
HELD_AT = 2


def held(
    cell: Cell, results: Path, data: Path, device: str, report: Callable[[dict[str, Any]], None], at_once: int
) -> Iterator[object]:
    """Do as `bench.train.run.steps`, whatever the device; note each start in data/starts."""
    run = RunDir(results, cell.run_id)
    epochs = len(run.epochs())
    note = {"run": cell.run_id, "epochs": epochs, "device": device, "process": os.getpid()}
    note |= {
        name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURMD_NODENAME")
    }
    with (data / "starts").open("a") as file:
        file.write(json.dumps(note) + "\n")
    for step in steps(cell, results, data, "cpu", report, at_once, checkpoint_seconds=0):
        while len(run.epochs()) >= HELD_AT and (data / "hold").exists():
            time.sleep(0.05)
        yield step


class OnCpu(Task):
    """A task that is on the CPU, whatever it asked for."""

    def _gpus(self) -> list[str]:
        return []
