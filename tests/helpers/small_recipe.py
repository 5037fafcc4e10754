"""A recipe of two methods, and the options that keep a command in a folder."""

from __future__ import annotations

from pathlib import Path

RECIPE = """\
# Two methods on digits, for a test.
title: A small story
grid: {dataset: digits, imbalance_factor: 10, backbone: resnet8_cifar, seed: [0, 1]}
protocol: {epochs: 1, batch_size: 128}
methods:
  ce: {}
  shifted: {method: posthoc_logit_adjustment, from: ce}
"""


def where(root: Path) -> list[object]:
    return ["--results", root / "results", "--data", root / "data", "--gpus", "none"]
