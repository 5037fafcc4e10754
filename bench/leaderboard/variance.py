"""Variance components of repeated runs: training subset, initialisation and the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Standard deviations in points; the sum of their squares is the variance of a run on a new split.

    `rest` is the interaction of split and seed. The estimates are from `splits` x `seeds` runs.
    """

    mean: float
    subset: float
    initialisation: float
    rest: float
    splits: int
    seeds: int

    @property
    def share_of_subset(self) -> float:
        """The share of the variance due to the subset, from 0 to 1; 0 without variance."""
        whole = self.subset**2 + self.initialisation**2 + self.rest**2
        return self.subset**2 / whole if whole else 0.0


def components(values: Mapping[tuple[int, int], float]) -> Components | None:
    """Split the variance of accuracies by (split seed, seed); None with fewer than two of either.

    Two-way random effects without replication, from the mean squares MS of the table: the variance of the
    subset is (MS_subset - MS_rest) / seeds, of the initialisation (MS_seed - MS_rest) / splits, of the rest
    MS_rest; negative estimates are 0. A split counts if it has all seeds of the most complete one.
    """
    by_split = dict[int, dict[int, float]]()
    for (split, seed), value in values.items():
        by_split.setdefault(split, {})[seed] = value
    fullest: Mapping[int, float] = max(by_split.values(), key=len, default={})
    seeds = sorted(fullest)
    table = np.array([[row[s] for s in seeds] for row in by_split.values() if row.keys() >= set(seeds)])
    if min(len(table), len(seeds)) < 2:
        return None
    a, b = table.shape
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    residuals = table - rows[:, None] - columns + mean
    rest = (residuals**2).sum() / ((a - 1) * (b - 1))
    subset = (b * ((rows - mean) ** 2).sum() / (a - 1) - rest) / b
    initial = (a * ((columns - mean) ** 2).sum() / (b - 1) - rest) / a
    parts = [math.sqrt(max(0.0, float(variance))) for variance in (subset, initial, rest)]
    return Components(float(mean), parts[0], parts[1], parts[2], splits=a, seeds=b)
