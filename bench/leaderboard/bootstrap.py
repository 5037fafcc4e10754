"""Bootstrap intervals of a mean accuracy over seeds, over test images, and over both.

Seeds and test images are crossed, as every run is tested on the same images. So both are resampled
independently, with replacement: the pigeonhole bootstrap (Owen, Annals of Applied Statistics 2007), which is
conservative.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]

from bench.errors import BenchError
from bench.leaderboard.compare import CONFIDENCE, difference

if TYPE_CHECKING:
    import pandas as pd

    from bench.result import Result

#: The number of resamples.
DRAWS = 2000

_UNKNOWN = (None, None, None)


@dataclass(frozen=True)
class Interval:
    """A mean over `seeds` and `images` with its interval, in percent."""

    mean: float
    low: float
    high: float
    seeds: int
    images: int


def interval(values: np.ndarray, *, seeds: bool = True) -> Interval | None:
    """Return the mean of values (S, N) of S seeds on N test images, and its 95 % interval; None if empty.

    Values are hits, or differences of two methods' hits on the same seeds and images. With one seed the
    interval is over images only.

    Args:
        seeds: whether seeds are resampled, too, and not images alone.
    """
    table = np.asarray(values, dtype=np.float32)
    if not table.size:
        return None
    s, n = table.shape
    of_seeds = _weights(s, 1) if seeds and s > 1 else np.float32(1 / s)
    means = 100.0 * (of_seeds * (_weights(n, 2) @ table.T)).sum(axis=1, dtype=np.float64)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(100.0 * table.mean(dtype=np.float64)), float(low), float(high), s, n)


def hits(runs: Iterable[Result]) -> np.ndarray | None:
    """Return whether each test image was classified correctly, (S, N) of S runs.

    None if a run's hits are not kept, or runs were tested on different images.
    """
    rows: Sequence[np.ndarray | None] = [run.hits for run in runs]
    known = [row for row in rows if row is not None]
    if not known or len(known) < len(rows) or len({len(row) for row in known}) > 1:
        return None
    return np.stack(known)


def compared(ours: Sequence[Result], theirs: Sequence[Result]) -> pd.DataFrame:
    """Compare the accuracies of two series over their common seeds, ours minus theirs, in points.

    Returns:
        A row for each source of variation, "seeds" (a t interval), "images" and "seeds and images", with
        `difference`, `low`, `high`, `seeds`, `images` and `wins`, the number of seeds on which ours is
        better. Unknown values are NA: one seed has no interval over seeds, and without kept hits there is
        none over images.

    Raises:
        BenchError: no seed in common, or different test images.
    """
    import pandas as pd

    one, other = ({run.cell.seed: run for run in runs} for runs in (ours, theirs))
    common = sorted(one.keys() & other.keys())
    pairs = [(one[seed], other[seed]) for seed in common]
    if not pairs:
        raise BenchError("the two have no seed in common; train them with the same seeds")
    if any(a.row["fingerprint_test"] != b.row["fingerprint_test"] for a, b in pairs):
        raise BenchError("the two were tested on different images; only runs on one test set are compared")
    paired = difference(*({seed: run.row["accuracy"] for seed, run in runs.items()} for runs in (one, other)))
    wins = sum(a.row["accuracy"] > b.row["accuracy"] for a, b in pairs)
    several = math.isfinite(paired.low)
    limits: dict[str, tuple[Any, ...]] = {"seeds": (paired.low, paired.high, None) if several else _UNKNOWN}
    bits = hits(run for pair in pairs for run in pair)
    for vary, seeds in (("images", False), ("seeds and images", True)):
        found = None
        if bits is not None and (several or not seeds):
            found = interval(bits[0::2].astype(np.float32) - bits[1::2], seeds=seeds)
        limits[vary] = (found.low, found.high, found.images) if found else _UNKNOWN
    rows = [
        (vary, paired.mean, low, high, len(pairs), images, wins)
        for vary, (low, high, images) in limits.items()
    ]
    columns = {"vary": "string", "difference": "Float64", "low": "Float64", "high": "Float64"}
    columns |= {"seeds": "Int64", "images": "Int64", "wins": "Int64"}
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


@lru_cache(maxsize=8)
def _weights(n: int, stream: int) -> np.ndarray:
    """Return the weights (DRAWS, n) of n items, a resample in each row, the same on every call.

    A bootstrap of few seeds is too narrow; it is widened by sqrt(n / (n - 1)) and by the quantile of t over
    that of the normal distribution.
    """
    rng = np.random.RandomState([stream, n])
    weights = np.empty((DRAWS, n), dtype=np.float32)
    for draw in range(DRAWS):
        weights[draw] = np.bincount(rng.randint(0, n, n), minlength=n)
    freedom, level = max(1, n - 1), (1 + CONFIDENCE) / 2
    widened = math.sqrt(n / freedom) * stdtrit(freedom, level) / ndtri(level)
    return (1 + (weights - 1) * np.float32(widened)) / np.float32(n)
