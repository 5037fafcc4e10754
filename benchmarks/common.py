"""What the benchmarks share: photographs with a long tail, the papers' loop, and writing results."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augment import papers, photographs
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bench.cell import BackboneChoice, Cell, DataSet, Optimizer, Protocol
from bench.cores import cores
from bench.data.feed.memory import MemoryLoader
from bench.data.split.load import InMemory
from bench.method import Batch, Method
from bench.registry import find
from bench.rundir import RunDir
from bench.train import loop
from bench.train.build import build
from bench.train.describe import environment
from bench.train.precision import wants_bfloat16
from bench.train.run import steps

RESULTS = Path(__file__).parent / "results"
CORES = cores()
CUDA = torch.cuda.is_available()
PHOTOS = DataSet(name="photographs", source="folder", folder="photographs", image_size=32)


def make_cell(method: str, augmentation: str, backbone: str = "resnet32_cifar", **more: Any) -> Cell:
    """Return a cell like those of the CIFAR recipes."""
    protocol = {"epochs": 200, "optimizer": Optimizer(), "augmentation": augmentation}
    return Cell(
        method=find(method).choose(),
        dataset=PHOTOS,
        imbalance_factor=100.0,
        backbone=BackboneChoice(name=backbone),
        protocol=Protocol(**protocol | more.pop("protocol", {})),
        **more,
    )


def long_tail(images: int, classes: int) -> InMemory:
    """Return a split of about `images` photographs, with imbalance factor 100."""
    shares = 0.01 ** (np.arange(classes) / (classes - 1))
    counts = np.maximum(np.round(shares * images / shares.sum()), 1).astype(int)
    labels = np.repeat(np.arange(classes), counts)
    train, test = photographs(len(labels), 32), photographs(500, 32)
    tested = np.arange(len(test)) % classes
    return InMemory(
        dataset=PHOTOS,
        images=torch.from_numpy(train).permute(0, 3, 1, 2),
        test_images=torch.from_numpy(test).permute(0, 3, 1, 2),
        positions=np.arange(len(labels)),
        labels=labels,
        test_labels=tested,
        class_counts=counts,
        class_names=tuple(map(str, range(classes))),
        fingerprint={},
        key="photographs",
    )


# -- the papers' side -----------------------------------------------------------------------------------
class Pictures(Dataset[Any]):
    """Images in memory, each transformed by Pillow on access, once per view."""

    def __init__(self, split: InMemory, policies: tuple[str, ...]) -> None:
        self.images = split.images.permute(0, 2, 3, 1).numpy()[split.positions]
        self.labels = split.labels
        self.transforms = [papers(policy, 32) for policy in policies]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, ...], int, int]:
        picture = Image.fromarray(self.images[index])
        return tuple(transform(picture) for transform in self.transforms), int(self.labels[index]), index


def official(cell: Cell, split: InMemory, workers: int, device: str) -> Iterator[tuple[Method, int]]:
    """Train as in the papers' repositories, yielding the method and the number of images after each step.

    The method and its loss are ours, so that both sides compute the same. The loop is theirs: workers that
    transform images one by one, float32, contiguous, eager, and reading the loss in each step.
    """
    method = build(cell, split.class_counts).to(device)
    policies = tuple(cell.protocol.augmentation if v.policy == "main" else v.policy for v in method.views)
    settings = cell.protocol.optimizer
    optimizer = torch.optim.SGD(
        method.parameters(), settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    loader = DataLoader(
        Pictures(split, policies),
        batch_size=cell.protocol.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=device == "cuda",
        multiprocessing_context="fork"
        if workers
        else None,  # as in a script; a spawned process has another default
    )
    running = 0.0
    for _ in range(cell.protocol.epochs):
        method.train()
        for views, labels, positions in loader:
            on_device = tuple(view.to(device, non_blocking=True) for view in views)
            loss = method.loss(Batch(on_device, labels.to(device, non_blocking=True), positions.to(device)))
            running += loss.item() * len(labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield method, len(labels)


# -- our side ------------------------------------------------------------------------------------------
def clocked(
    cell: Cell, results: Path, data: Path, device: str, report: Callable[[dict[str, Any]], None], at_once: int
) -> Iterator[object]:
    """Do the same as `bench.train.run.steps`, and write the times to the run's directory."""
    times = {"first_step": 0.0, "training": 0.0}

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            started = time.monotonic()
            try:
                return function(*args)
            finally:
                times["training"] += time.monotonic() - started

        return call

    learn, batch = loop.Training._learn, MemoryLoader._batch
    loop.Training._learn, MemoryLoader._batch = timed(learn), timed(batch)  # type: ignore[method-assign]
    loop.logits_of, logits_of = timed(loop.logits_of), loop.logits_of
    for _ in steps(cell, results, data, device, report, at_once):
        times["first_step"] = times["first_step"] or time.monotonic()
        yield
    loop.Training._learn, MemoryLoader._batch = learn, batch  # type: ignore[method-assign]
    loop.logits_of = logits_of
    text = f"{times['first_step']} {times['training']}"
    (RunDir(results, cell.run_id).path / "clock.txt").write_text(text)


# -- writing --------------------------------------------------------------------------------------------
def load_average() -> float:
    """Return the load average of the last minute, including this benchmark's."""
    return round(os.getloadavg()[0], 2)


def write(name: str, options: Any, rows: list[dict[str, Any]], load: list[float]) -> None:
    """Write the rows, with settings and machine, as JSON."""
    device = "cuda" if CUDA else "cpu"
    result = {
        "settings": {k: v for k, v in vars(options).items() if k != "output" and not isinstance(v, Path)},
        "machine": {
            **environment(device),
            "cpu": platform.machine(),
            "cores": CORES,
            "bfloat16": wants_bfloat16("fast", device),
        },
        "load_average": load,
        "date": datetime.now(UTC).date().isoformat(),
        "rows": rows,
    }
    path = options.output or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path.name}; load average {load[0]} before, {load[-1]} after")
