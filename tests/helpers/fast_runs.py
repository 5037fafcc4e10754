"""Trainings in one process: replayed, recorded on a tape, or run directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tape import Tapes

from bench import registry
from bench.cell import BackboneChoice, Cell, Optimizer, Protocol, Schedule
from bench.data.augment import op
from bench.data.feed.memory import MemoryLoader
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import Split, load
from bench.rundir import RunDir
from bench.train.build import build
from bench.train.interleave import Turns
from bench.train.loop import Training
from bench.train.precision import keep_float32

DIGITS = DATASETS["digits"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def split() -> Split:
    return load(DIGITS, 20.0, Path())


def make_cell(name: str = "ce", mode: str = "fast", backbone: str = "resnet8_cifar", **protocol: Any) -> Cell:
    entry = registry.find(name)
    parent = make_cell(entry.build.usual_parent, mode, backbone) if entry.build.needs_parent else None
    settings = {"epochs": 2, "batch_size": 64, "schedule": Schedule(per="step"), "evaluate_every": 2}
    return Cell(
        method=entry.choose(),
        dataset=DIGITS,
        imbalance_factor=20.0,
        backbone=BackboneChoice(name=backbone),
        protocol=Protocol(**settings | {"optimizer": Optimizer(lr=0.05)} | protocol),
        mode=mode,
        parent=parent,
    )


def training(cell: Cell, split: Split, where: Path, device: str = "cpu", play: Any = None) -> Training:
    """A run about to begin; `play` takes the place of what its mode would choose."""
    keep_float32()
    method = build(cell, split.epoch_counts).to(device)
    loader = MemoryLoader(split, method.views, cell, device, extra_sampler=method.extra_sampler)
    if play:
        loader.play = play
    method.before_training(loader.train_eval())
    if device == "cuda":
        torch.cuda.synchronize()  # it trains on another stream
    return Training(cell, method, loader, RunDir(where, cell.run_id), device, 1e9)


def lines(run: Training) -> list[dict[str, Any]]:
    """Train to the end and return the epochs' lines, without their times."""
    reported: list[dict[str, Any]] = []
    turns = Turns[str](run.device)
    turns.add("it", run.steps(reported.append))
    for _, error in turns.take():
        if error:
            raise error
    return [{k: v for k, v in line.items() if k != "seconds"} for line in reported]


def weights(run: Training) -> torch.Tensor:
    return torch.cat([p.detach().cpu().flatten() for p in run.method.parameters()])


@pytest.fixture
def tapes(monkeypatch) -> Tapes:
    """Tapes, and what asks the device on a CPU alone done as on a GPU."""

    def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
        return torch.zeros(*labels.shape, classes, dtype=torch.int64).scatter_(-1, labels[..., None], 1)

    monkeypatch.setattr(op, "wants_static", lambda images: True)
    monkeypatch.setattr(torch.nn.functional, "one_hot", one_hot)
    return Tapes()


def assert_same(one: Training, other: Training) -> None:
    assert lines(one) == lines(other)
    assert torch.equal(weights(one), weights(other))
    assert np.array_equal(one.logits, other.logits)
