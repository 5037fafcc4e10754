"""Paired difference of two methods over common seeds, with its 95 % t interval; bold and ties in a league.

A seed fixes the initial weights and the sequence of images for all methods alike, so the difference of two
methods on one seed is free of what they share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

#: The confidence level of all intervals.
CONFIDENCE = 0.95

#: The fewest seeds that a bold row has.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Difference:
    """Mean difference over `n` common seeds, in points, and its t interval.

    With one seed the interval is infinite; without a common seed the mean is NaN too.
    """

    mean: float
    low: float
    high: float
    n: int


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare two methods by their values by seed, in percent: ours minus theirs."""
    common = sorted(set(ours) & set(theirs))
    gaps = np.array([ours[seed] - theirs[seed] for seed in common])
    if len(gaps) < 2:
        return Difference(gaps[0] if len(gaps) else math.nan, -math.inf, math.inf, len(gaps))
    mean = float(gaps.mean())
    half = stdtrit(len(gaps) - 1, (1 + CONFIDENCE) / 2) * gaps.std(ddof=1) / math.sqrt(len(gaps))
    return Difference(mean, mean - half, mean + half, len(gaps))


@dataclass(frozen=True)
class Noise:
    """Variance of a single run of a league, without seed effects, and its degrees of freedom.

    Three seeds estimate a row's variance poorly, so the rows of a league share it, as in limma's moderated t
    (Smyth 2004), here by the median over rows: an unstable row widens no interval.
    """

    variance: float
    freedom: float


def noise(values: Mapping[str, Mapping[int, float]]) -> Noise:
    """Estimate the noise of a league from the values by seed of its rows with at least `FEWEST_SEEDS`.

    Each row is centred on its mean, then each seed on its median over rows. With d + 1 seeds the median of
    the variances is (1 - 2/(9d))^3 of their mean, with about half the degrees of freedom.
    """
    table = _table(_several_seeds(values))
    if not table.size:
        return Noise(0.0, 1.0)
    residuals = table - np.nanmean(table, axis=1, keepdims=True)
    residuals -= np.nanmedian(residuals, axis=0, keepdims=True)
    residuals -= np.nanmean(residuals, axis=1, keepdims=True)
    count, freedoms = len(table), np.sum(~np.isnan(table), axis=1) - 1
    correction = count / (count - 1) if count > 1 else 1.0  # for the variance removed with the seeds' medians
    variances = np.nansum(residuals**2, axis=1) / freedoms * correction
    if count > 2:
        variances = variances / (1 - 2 / (9 * freedoms)) ** 3
    positive = variances[variances > 1e-12]  # rows that are 0 in all seeds carry no information on others
    freedom = float(np.median(freedoms))
    variance = float(np.median(positive)) if len(positive) else 0.0
    return Noise(variance, freedom * max(1, (len(positive) - 1) / 2))


def _several_seeds(values: Mapping[str, Mapping[int, float]]) -> dict[str, Mapping[int, float]]:
    return {key: by_seed for key, by_seed in values.items() if len(by_seed) >= FEWEST_SEEDS}


def _table(rows: Mapping[str, Mapping[int, float]]) -> np.ndarray:
    """Return values (rows, seeds), NaN where a row lacks a seed."""
    seeds = sorted({seed for by_seed in rows.values() for seed in by_seed})
    return np.array([[by_seed.get(seed, np.nan) for seed in seeds] for by_seed in rows.values()])


def half_width(count: int, noise: Noise) -> float:
    """Return half the width of the interval of a mean over `count` seeds, from the noise of its league."""
    half = float(stdtrit(noise.freedom, (1 + CONFIDENCE) / 2))
    return half * math.sqrt(noise.variance / count)


def best(values: Mapping[str, Mapping[int, float]]) -> set[str]:
    """Return the keys to print in bold: the best mean, and all whose difference to it may be noise.

    A series of fewer than `FEWEST_SEEDS` is never bold.

    Args:
        values: of the series of one league, by seed; higher is better.
    """
    rows = _several_seeds(values)
    if not rows:
        return set()
    top = max(rows, key=lambda key: (math.fsum(rows[key].values()) / len(rows[key]), key))
    return {top, *tied(rows, dict.fromkeys(rows, noise(rows)))[top]}


def tied(values: Mapping[str, Mapping[int, float]], noises: Mapping[str, Noise]) -> dict[str, list[str]]:
    """Return for each series of several seeds the others whose difference to it may be noise.

    The difference is over common seeds, or of the means if there are none. Between two leagues the larger
    noise counts.

    Args:
        noises: the noise of the league of each series.
    """
    rows = _several_seeds(values)
    keys, table = list(rows), _table(rows)
    variance = np.array([noises[key].variance for key in keys])
    freedom = np.array([noises[key].freedom for key in keys])
    found = {}
    for i, key in enumerate(keys):
        gaps = table[i] - table
        known = ~np.isnan(gaps)
        count, sizes = known.sum(axis=1), (~np.isnan(table)).sum(axis=1)
        paired = count > 0
        unpaired = np.nanmean(table[i]) - np.nanmean(table, axis=1)
        mean = np.where(paired, np.where(known, gaps, 0).sum(axis=1) / np.maximum(count, 1), unpaired)
        share = np.where(paired, 2 / np.maximum(count, 1), 1 / sizes[i] + 1 / sizes)
        error = np.sqrt(np.maximum(variance, variance[i]) * share)
        limit = stdtrit(np.minimum(freedom, freedom[i]), (1 + CONFIDENCE) / 2) * error
        found[key] = [keys[other] for other in np.flatnonzero(np.abs(mean) <= limit) if other != i]
    return found
