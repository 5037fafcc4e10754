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

#: Seeds that a row needs to be bold.
FEWEST_SEEDS = 3


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


@dataclass(frozen=True)
class Noise:
    """What repetitions of a league's rows differ by, seeds aside: the variance of one score, and its freedom.

    Three seeds tell little of a row's own noise, so rows of a league share theirs, as in limma's moderated t
    (Smyth 2004), here by the median over rows: one that is far from steady widens neither its own interval
    nor another's.
    """

    variance: float
    freedom: float


def noise(scores: Mapping[str, Mapping[int, float]]) -> Noise:
    """Estimate the noise of a league from its rows of at least `FEWEST_SEEDS`.

    From a row's scores its mean is taken, and then from what is left the median over the rows of that seed.
    With d + 1 seeds the median of the variances is (1 - 2/(9d))^3 of their mean, and about half as sure.
    """
    rows = {key: seeds for key, seeds in scores.items() if len(seeds) >= FEWEST_SEEDS}
    if not rows:
        return Noise(0.0, 1.0)
    seeds = sorted({seed for own in rows.values() for seed in own})
    table = np.array([[own.get(seed, np.nan) for seed in seeds] for own in rows.values()])
    left = table - np.nanmean(table, axis=1, keepdims=True)
    left -= np.nanmedian(left, axis=0, keepdims=True)
    left -= np.nanmean(left, axis=1, keepdims=True)
    count, freedoms = len(rows), np.sum(~np.isnan(table), axis=1) - 1
    shared = count / (count - 1) if count > 1 else 1.0  # what the seeds' medians took of it
    variances = np.nansum(left**2, axis=1) / freedoms * shared
    if count > 2:
        variances = variances / (1 - 2 / (9 * freedoms)) ** 3
    moving = variances[variances > 1e-12]  # rows that are 0 in all seeds say nothing of others
    freedom = float(np.median(freedoms))
    variance = float(np.median(moving)) if len(moving) else 0.0
    return Noise(variance, freedom * max(1, (len(moving) - 1) / 2))


def reach(count: int, noise: Noise) -> float:
    """Return half the interval of a mean over so many seeds, from the noise that its league shares."""
    half = float(stdtrit(noise.freedom, (1 + CONFIDENCE) / 2))
    return half * math.sqrt(noise.variance / count)


def best(scores: Mapping[str, Mapping[int, float]]) -> set[str]:
    """Return what to print in bold: the best mean, and all that noise does not let be told from it.

    Fewer than `FEWEST_SEEDS` say too little, so a row of fewer is neither the best nor told from it.

    Args:
        scores: of the series of one league by seed, higher is better.
    """
    keys = [key for key, seeds in scores.items() if len(seeds) >= FEWEST_SEEDS]
    if not keys:
        return set()
    top = max(keys, key=lambda key: (math.fsum(scores[key].values()) / len(scores[key]), key))
    return {top, *tied(scores, dict.fromkeys(keys, noise(scores)))[top]}


def tied(scores: Mapping[str, Mapping[int, float]], noises: Mapping[str, Noise]) -> dict[str, list[str]]:
    """Return for each series of several seeds the others that noise does not let it be told from.

    The difference is that of common seeds, without any that of the means; of two leagues the larger noise
    counts.

    Args:
        noises: of the league of each.
    """
    keys = [key for key, seeds in scores.items() if len(seeds) >= FEWEST_SEEDS]
    seeds = sorted({seed for key in keys for seed in scores[key]})
    table = np.array([[scores[key].get(seed, np.nan) for seed in seeds] for key in keys])
    variance = np.array([noises[key].variance for key in keys])
    freedom = np.array([noises[key].freedom for key in keys])
    found = {}
    for place, key in enumerate(keys):
        gaps = table[place] - table
        known = ~np.isnan(gaps)
        count, sizes = known.sum(axis=1), (~np.isnan(table)).sum(axis=1)
        paired = count > 0
        apart = np.nanmean(table[place]) - np.nanmean(table, axis=1)
        mean = np.where(paired, np.where(known, gaps, 0).sum(axis=1) / np.maximum(count, 1), apart)
        share = np.where(paired, 2 / np.maximum(count, 1), 1 / sizes[place] + 1 / sizes)
        error = np.sqrt(np.maximum(variance, variance[place]) * share)
        reach = stdtrit(np.minimum(freedom, freedom[place]), (1 + CONFIDENCE) / 2) * error
        found[key] = [keys[other] for other in np.flatnonzero(np.abs(mean) <= reach) if other != place]
    return found
