"""Where the spread of repetitions comes from: the subset that was drawn, the initialisation, and the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Standard deviations in points; the sum of their squares is the variance of a run on a new split.

    `rest` is what split and seed make together, beyond what each makes alone. `splits` and `seeds` are how
    many of each the estimates rest on.
    """

    mean: float
    subset: float
    initialisation: float
    rest: float
    splits: int
    seeds: int

    @property
    def share_of_subset(self) -> float:
        """The part of the variance that is the subset's, from 0 to 1; 0 where there is no variance."""
        whole = self.subset**2 + self.initialisation**2 + self.rest**2
        return self.subset**2 / whole if whole else 0.0


def components(scores: Mapping[tuple[int, int], float]) -> Components | None:
    """Part the variance of scores by split seed and seed, None where there are not two of both.

    Two-way random effects without replication: of the mean squares MS of the table, the variance of the
    subset is (MS_subset - MS_rest) / seeds, of the initialisation (MS_seed - MS_rest) / splits, of the rest
    MS_rest; a negative one is 0. Only splits that have all seeds of the most complete one count.
    """
    by_split = dict[int, dict[int, float]]()
    for (split, seed), score in scores.items():
        by_split.setdefault(split, {})[seed] = score
    if not by_split:
        return None
    fullest: dict[int, float] = max(by_split.values(), key=lambda row: len(row))
    seeds = sorted(fullest)
    table = np.array([[row[s] for s in seeds] for row in by_split.values() if row.keys() >= set(seeds)])
    a, b = table.shape
    if a < 2 or b < 2:
        return None
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    left = table - rows[:, None] - columns + mean
    rest = (left**2).sum() / ((a - 1) * (b - 1))
    subset = (b * ((rows - mean) ** 2).sum() / (a - 1) - rest) / b
    initial = (a * ((columns - mean) ** 2).sum() / (b - 1) - rest) / a
    parts = [math.sqrt(max(0.0, float(variance))) for variance in (subset, initial, rest)]
    return Components(float(mean), parts[0], parts[1], parts[2], splits=a, seeds=b)
