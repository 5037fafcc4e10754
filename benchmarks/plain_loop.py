"""Compares the accuracy of a plain PyTorch loop with this suite's record of the same cell.

The cell is from recipes/cifar/cifar_lt_plain_rebuilt.yaml: cross-entropy or balanced softmax at imbalance
factor 100, trained as in LDAM-DRW's paper. The loop shares only the images with the suite: it has its own
ResNet-32, torchvision's transforms on Pillow images, torch's DataLoader, float32, SGD. If both reach the same
accuracy and the paper another, the suite's training is not the cause. After each epoch it writes a
checkpoint, from which a stopped loop continues.

    python benchmarks/plain_loop.py --data data --dataset cifar100_rebuilt --label balanced_softmax
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import CUDA, Pictures, load_average, write
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.cell import Cell
from bench.data.split.load import InMemory, load
from bench.recipe import load as load_recipe
from bench.records import Results

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar" / "cifar_lt_plain_rebuilt.yaml"
DEVICE = "cuda" if CUDA else "cpu"
#: Label -> the factor of the log class counts that its loss adds to the logits.
LABELS = {"ce": 0.0, "balanced_softmax": 1.0}


class Block(nn.Module):
    """Two convolutions and a shortcut, padded with zeros if they widen (ResNet's option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(outputs)
        self.c2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        inside = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        beside = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(inside + beside)


class ResNet32(nn.Module):
    """The ResNet-32 of CIFAR: 16, 32 and 64 channels, five blocks each."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.b = nn.BatchNorm2d(16)
        widths = [16] * 6 + [32] * 5 + [64] * 5
        pairs = itertools.pairwise(widths)
        self.l = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in pairs))
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.l(F.relu(self.b(self.c(x)))).mean((2, 3)))


def rate(epoch: int, epochs: int) -> float:
    """Return the rate of an epoch from 1: warm-up to 5; 1/100 after 160 of 200, 1/10,000 after 180."""
    if epoch <= 5:
        return 0.1 * epoch / 5
    return 0.1 * (0.0001 if epoch > 0.9 * epochs else 0.01 if epoch > 0.8 * epochs else 1)


def train(cell: Cell, prior: float, data: Path, checkpoint: Path) -> list[dict[str, Any]]:
    """Train the plain loop and return its curve: epoch, loss and, after every fifth, accuracy in percent."""
    split, epochs = load(cell.dataset, cell.imbalance_factor, data), cell.protocol.epochs
    assert isinstance(split, InMemory)
    order = np.arange(len(split.test_labels))
    test = replace(split, images=split.test_images, positions=order, labels=split.test_labels)
    batches = DataLoader(Pictures(split, ("crop_flip",)), 128, shuffle=True)
    added = prior * torch.tensor(split.class_counts, dtype=torch.float32).log().to(DEVICE)
    torch.manual_seed(cell.seed)
    network = ResNet32(len(split.class_counts)).to(DEVICE)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    curve: list[dict[str, Any]] = []
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=DEVICE)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        curve = saved["curve"]
    for epoch in range(len(curve) + 1, epochs + 1):
        torch.manual_seed(1000 * cell.seed + 999 + epoch)  # so that a resumed loop draws the same numbers
        started = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch, epochs)
        network.train()
        total = 0.0
        for (images,), labels, _ in batches:
            loss = F.cross_entropy(network(images.to(DEVICE)) + added, labels.to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        accuracy = score(network, test) if epoch % 5 == 0 or epoch == epochs else None
        curve.append({"epoch": epoch, "loss": round(total / len(batches), 4), "accuracy": accuracy})
        print(*curve[-1].values(), f"{time.monotonic() - started:.1f} s", flush=True)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        saved = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "curve": curve}
        torch.save(saved, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)
    return curve


@torch.no_grad()
def score(network: nn.Module, test: InMemory) -> float:
    """Return the top-1 accuracy, in percent."""
    network.eval()
    right = sum(
        (network(images.to(DEVICE)).argmax(1).cpu() == labels).sum().item()
        for (images,), labels, _ in DataLoader(Pictures(test, ("none",)), 100)
    )
    return round(100 * right / len(test.labels), 2)


def main() -> None:
    """Train, and write the curve with that of our record as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--data", type=Path, default=Path("data"))
    arguments.add_argument("--results", type=Path, default=Path("results"))
    arguments.add_argument("--dataset", default="cifar100_rebuilt")
    arguments.add_argument("--label", choices=LABELS, default="ce")
    arguments.add_argument("--checkpoint", type=Path)
    arguments.add_argument("--output", type=Path)
    options = arguments.parse_args()
    before = load_average()
    cell = next(
        point.cell
        for point in load_recipe(RECIPE).points
        if (point.label, point.cell.dataset.name, point.cell.seed) == (options.label, options.dataset, 0)
    )
    checkpoint = options.checkpoint or Path(f"build/plain_loop-{cell.run_id}.pt")
    ours = Results(options.results)[cell.run_id].curve
    if len(ours) < cell.protocol.epochs:
        raise SystemExit(f"{options.results}: has not all of {cell.run_id}; train it by {RECIPE.name} first")
    rows = [
        {**point, "ours_loss": round(line["loss"], 4), "ours_accuracy": line.get("accuracy")}
        for point, line in zip(
            train(cell, LABELS[options.label], options.data, checkpoint), ours, strict=True
        )
    ]
    last = rows[-1]
    print(f"last epoch: plain loop {last['accuracy']:.2f}, this suite {last['ours_accuracy']:.2f}")
    write(f"plain_loop-{options.dataset}-{options.label}", options, rows, [before, load_average()])


if __name__ == "__main__":
    main()
