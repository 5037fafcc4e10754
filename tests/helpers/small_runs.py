"""Runs of seconds on digits, which really train."""

from __future__ import annotations

from pathlib import Path

from bench.cell import BackboneChoice, Cell, Optimizer, Protocol, Schedule
from bench.data.sets.catalogue import DATASETS
from bench.registry import find
from bench.rundir import RunDir
from bench.train.run import run_cell


def make_cell(method="ce", parent=None, epochs=3, seed=0, lr=0.05, **params) -> Cell:
    return Cell(
        method=find(method).choose(**params),
        dataset=DATASETS["digits"],
        imbalance_factor=20.0,
        backbone=BackboneChoice(name="resnet8_cifar"),
        protocol=Protocol(
            epochs=epochs,
            batch_size=64,
            optimizer=Optimizer(lr=lr),
            schedule=Schedule(warmup_epochs=1),
            evaluate_every=2,
        ),
        seed=seed,
        parent=parent,
    )


def run(cell: Cell, results: Path, data: Path, **options) -> dict:
    run_cell(cell, results, data, **options)
    return RunDir(results, cell.run_id).read_record()
