"""Method against method: the paired difference over common seeds, and what noise allows to be said of it.

One seed decides the initial weights and the order of images for all methods alike, so the difference of two
methods on one seed is free of what both share, and its spread over seeds is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

#: How sure an interval is.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of the differences over `n` common seeds, in points, and its t interval.

    One seed says nothing of its own noise: its interval is the whole line. Without a common seed the mean
    is NaN too.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def includes_zero(self) -> bool:
        """Whether noise alone could have made the difference."""
        return self.low <= 0 <= self.high


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare two methods seed by seed: scores by seed, in percent; ours minus theirs."""
    common = sorted(set(ours) & set(theirs))
    gaps = np.array([ours[seed] - theirs[seed] for seed in common])
    if len(gaps) < 2:
        return Difference(gaps[0] if len(gaps) else math.nan, -math.inf, math.inf, len(gaps))
    mean = float(gaps.mean())
    reach = stdtrit(len(gaps) - 1, (1 + CONFIDENCE) / 2) * gaps.std(ddof=1) / math.sqrt(len(gaps))
    return Difference(mean, mean - reach, mean + reach, len(gaps))


def best(scores: Mapping[str, Mapping[int, float]]) -> set[str]:
    """Return what to print in bold: the best mean, and all whose interval against it includes zero.

    One seed says nothing of its own noise, so a series of one is neither the best nor told from it.

    Args:
        scores: of the series of one league by seed, higher is better.
    """
    means = {key: math.fsum(seeds.values()) / len(seeds) for key, seeds in scores.items() if len(seeds) > 1}
    if not means:
        return set()
    top = max(means, key=lambda key: (means[key], key))
    return {key for key in means if key == top or difference(scores[key], scores[top]).includes_zero}


def tied(scores: Mapping[str, Mapping[int, float]]) -> dict[str, list[str]]:
    """Return for each series of several seeds the others that noise does not let it be told from.

    What `difference` says of each pair, for all pairs at once.
    """
    keys = [key for key, seeds in scores.items() if len(seeds) > 1]
    seeds = sorted({seed for key in keys for seed in scores[key]})
    table = np.array([[scores[key].get(seed, np.nan) for seed in seeds] for key in keys])
    found = {}
    for place, key in enumerate(keys):
        gaps = table[place] - table
        known = ~np.isnan(gaps)
        count = known.sum(axis=1)
        mean = np.where(known, gaps, 0).sum(axis=1) / np.maximum(count, 1)
        square = np.where(known, gaps - mean[:, None], 0) ** 2
        spread = np.sqrt(square.sum(axis=1) / np.maximum(count - 1, 1))
        reach = (
            stdtrit(np.maximum(count - 1, 1), (1 + CONFIDENCE) / 2) * spread / np.sqrt(np.maximum(count, 1))
        )
        alike = (count < 2) | (np.abs(mean) <= reach)
        found[key] = [keys[other] for other in np.flatnonzero(alike) if other != place]
    return found
