"""Made-up runs for tests of what reads them: real files, written by the real code, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.cell import BackboneChoice, Cell, DataSet, MethodChoice, Protocol
from bench.data.split.longtail import exponential
from bench.gridfile import write_grid
from bench.metrics import confusion_matrix, score
from bench.randomness import generator
from bench.rundir import RunDir

CIFAR10 = DataSet(name="cifar10", source="cifar10", title="CIFAR-10-LT", n_max=5000)
CIFAR10_JPEG = DataSet(
    name="cifar10_jpeg",
    source="cifar10",
    title="CIFAR-10-LT (JPEG copy)",
    copy_of="cifar10",
    copy_kind="JPEG quality 75",
    n_max=5000,
)
DIGITS = DataSet(name="digits", source="digits", title="Digits-LT", image_size=8, n_max=120)

#: Title, paper and how good the made-up method is: what it adds for head and for tail classes.
METHODS = {
    "ce": ("Cross-entropy", None, (2.6, 0.9)),
    "ldam_drw": ("LDAM-DRW", "https://arxiv.org/abs/1906.07413", (2.5, 1.6)),
    "balanced_softmax": ("Balanced Softmax", "https://arxiv.org/abs/2007.10740", (2.4, 1.9)),
    "tsc": ("TSC", "https://arxiv.org/abs/2111.13998", (2.6, 2.0)),
    "crt": ("cRT", "https://arxiv.org/abs/1910.09217", (2.4, 1.8)),
}


def make_cell(
    method: str = "ce", seed: int = 0, *, dataset: DataSet = CIFAR10, params: Any = None, **changes: Any
) -> Cell:
    """Return a cell; `changes` replace its other fields."""
    fields: dict[str, Any] = {
        "method": MethodChoice(name=method, params=params or {}, changed=tuple(sorted(params or {}))),
        "dataset": dataset,
        "imbalance_factor": 100.0,
        "backbone": BackboneChoice(name="cifar_resnet32"),
        "protocol": Protocol(),
        "seed": seed,
    }
    return Cell(**(fields | changes))


def finish(results: Path, cell: Cell, *, fingerprint: str = "0123456789abcdef", **changes: Any) -> RunDir:
    """Write a finished run with logits and metrics that fit together; `changes` replace record keys."""
    run = RunDir(results, cell.run_id)
    title, paper, (head, tail) = METHODS.get(cell.method.name, (cell.method.name, None, (2.0, 1.0)))
    rng = generator("fake", cell.id)
    counts = exponential(cell.dataset.n_max or 100, cell.imbalance_factor, 10)
    labels = np.repeat(np.arange(10), 40)
    skill = np.linspace(head, tail, 10) + rng.normal(0, 0.05)
    logits = rng.normal(size=(400, 10))
    logits[np.arange(400), labels] += skill[labels]
    logits = logits.astype(np.float16)
    metrics = score(logits, labels, counts, cell.dataset.shots)
    epochs = cell.protocol.epochs

    run.write_cell(cell)
    for epoch in range(3):
        run.append_epoch(
            {"epoch": epoch, "epochs": epochs, "loss": 1 / (epoch + 1), "lr": 0.1, "seconds": 2.0}
        )
    best = {key: metrics[key] for key in ("accuracy", "many", "medium", "few")}
    record = {
        "status": "done",
        "reason": None,
        "traceback": None,
        "cell": cell.model_dump(mode="json"),
        "method": {
            "name": cell.method.name,
            "title": title,
            "family": "made up",
            "venue": "Nowhere",
            "year": 2020,
            "paper": paper,
            "reconstruction": cell.method.name == "tsc",
            "views": ["main"],
            "scores": "train_prior",
        },
        "data": {
            "title": cell.dataset.title,
            "copy_of": cell.dataset.copy_of,
            "copy_kind": cell.dataset.copy_kind,
            "fingerprint": {"train": fingerprint, "test": "fedcba9876543210"},
            "class_names": [f"class {c}" for c in range(10)],
            "class_counts": counts,
            "test_counts": np.bincount(labels),
        },
        "model": {"parameters": 464154, "inference_parameters": 464154},
        "metrics": {"selection": "last_epoch", "epoch": epochs - 1, **metrics},
        "best_on_test": best | {"epoch": epochs - 3, "accuracy": metrics["accuracy"] + 0.25},
        "confusion": confusion_matrix(logits.argmax(axis=1), labels, 10),
        "files": {"logits.npz": run.write_logits(logits, labels)},
        "timing": {
            "images_per_second": 15000.0 + cell.seed,
            "wall_seconds": 180.0 + cell.seed,
            "device_seconds": 170.0,
            "peak_memory_mb": 900.0,
            "finished": "2026-01-02T03:04:05+00:00",
        },
        "environment": {"git": "abc", "python": "3.11", "torch": "2.13", "device": "Some CPU"},
    }
    run.write_record(record | changes)
    return run


def fail(results: Path, cell: Cell, reason: str) -> RunDir:
    """Write a run that failed."""
    run = RunDir(results, cell.run_id)
    run.write_cell(cell)
    failure = {"status": "failed", "reason": reason, "traceback": "Traceback", "environment": {}}
    run.write_record(failure | {"cell": cell.model_dump(mode="json")})
    return run


def make_grid(results: Path, name: str, cells: Iterable[tuple[str, Cell]], **changes: Any) -> dict[str, Any]:
    """Write the grid of a recipe that asks for `cells`, each with its label."""
    grid = {
        "recipe": name,
        "title": "Made-up numbers",
        "notes": "Nothing of this was measured.\nIt takes no time at all.",
        "cells": [
            {"run_id": cell.run_id, "label": label, "cell": cell.model_dump(mode="json")}
            for label, cell in cells
        ],
    } | changes
    write_grid(results, name, grid)
    return grid
