"""How sure a mean is: over the seeds that were trained, over the test images that were drawn, and over both.

A seed and a test image cross: every run is tested on the same images. So seeds and images are drawn anew each
for itself, with replacement (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 2007, which errs
on the wide side).
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

    from bench.records import Result

#: So many times seeds and images are drawn.
DRAWS = 2000

#: How many columns of draws are looked at together: bounds the memory.
_AT_ONCE = 200


@dataclass(frozen=True)
class Interval:
    """Where a mean of so many seeds and images lies, in percent."""

    mean: float
    low: float
    high: float
    seeds: int
    images: int


def interval(values: np.ndarray, *, seeds: bool = True, images: bool = True) -> Interval | None:
    """Return the mean of values (S, N) of S seeds on N test images, and its 95 % interval; None of no seed.

    Values are hits, or the differences of two methods' hits on the same seeds and images. What is not to vary
    stays as it is; one seed says nothing of other seeds, so its interval is over images alone.

    Args:
        seeds, images: what is drawn anew.
    """
    table = np.asarray(values, dtype=np.float32)
    if not table.size:
        return None
    s, n = table.shape
    of_seeds = _weights(s, 1) if seeds and s > 1 else np.full((s, DRAWS), 1 / s, dtype=np.float32)
    if images:
        whole = _weights(n, 2)
        parts = [table @ whole[:, i : i + _AT_ONCE] for i in range(0, DRAWS, _AT_ONCE)]
        of_images = np.concatenate(parts, axis=1)
    else:
        of_images = np.repeat(table.mean(axis=1, keepdims=True), DRAWS, axis=1)
    means = 100.0 * (of_seeds * of_images).sum(axis=0, dtype=np.float64)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(100.0 * table.mean(dtype=np.float64)), float(low), float(high), s, n)


def hits(runs: Iterable[Result]) -> np.ndarray | None:
    """Return which test images were classified rightly, (S, N), of S runs.

    None where the bits of a run are not kept, or runs were tested on different images.
    """
    rows: Sequence[np.ndarray | None] = [run.hits for run in runs]
    known = [row for row in rows if row is not None]
    if not known or len(known) < len(rows) or len({len(row) for row in known}) > 1:
        return None
    return np.stack(known)


def compared(ours: Sequence[Result], theirs: Sequence[Result]) -> pd.DataFrame:
    """Compare the accuracies of two series by the seeds that both have, ours minus theirs, in points.

    Returns:
        A row for what may vary, "seeds" (a t interval), "images" and "seeds and images", with `difference`,
        `low`, `high`, `seeds`, `images` and `wins`, the number of seeds on which ours is better. What is not
        known is NA: one seed has no interval over seeds, and without kept hits there is none over images.

    Raises:
        BenchError: they have no seed in common, or were tested on different images.
    """
    import pandas as pd

    one, other = ({run.cell.seed: run for run in runs} for runs in (ours, theirs))
    common = sorted(one.keys() & other.keys())
    pairs = [(one[seed], other[seed]) for seed in common]
    if not pairs:
        raise BenchError("the two have no seed in common; train them with the same seeds")
    if any(a.row["fingerprint_test"] != b.row["fingerprint_test"] for a, b in pairs):
        raise BenchError("the two were tested on different images; only runs on one test set are compared")
    gaps = [a.row["accuracy"] - b.row["accuracy"] for a, b in pairs]
    told = difference(*({seed: run.row["accuracy"] for seed, run in runs.items()} for runs in (one, other)))
    shared = {"seeds": len(pairs), "wins": sum(gap > 0 for gap in gaps)}
    known = math.isfinite(told.low)
    rows: list[dict[str, Any]] = [
        {"vary": "seeds", "low": told.low if known else None, "high": told.high if known else None}
    ]
    bits = [hits([run]) for pair in pairs for run in pair]
    for vary, seeds in (("images", False), ("seeds and images", True)):
        row: dict[str, Any] = {"vary": vary, "low": None, "high": None}
        if all(found is not None for found in bits) and (known or not seeds):
            table = np.concatenate([b.astype(np.float32) for b in bits if b is not None])
            found = interval(table[0::2] - table[1::2], seeds=seeds)
            assert found is not None
            row |= {"low": found.low, "high": found.high, "images": found.images}
        rows.append(row)
    columns = {"vary": "string", "difference": "Float64", "low": "Float64", "high": "Float64"}
    columns |= {"seeds": "Int64", "images": "Int64", "wins": "Int64"}
    rows = [row | shared | {"difference": told.mean} for row in rows]
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


@lru_cache(maxsize=8)
def _weights(n: int, stream: int) -> np.ndarray:
    """Return the weights (n, DRAWS) of n things, each column of a draw with replacement, the same every time.

    Few seeds say little of their own spread, which makes a bootstrap too narrow: it is widened by
    sqrt(n / (n - 1)), and by the quantile of t over that of the normal distribution.
    """
    rng = np.random.RandomState([stream, n])
    weights = np.empty((n, DRAWS), dtype=np.float32)
    for draw in range(DRAWS):
        weights[:, draw] = np.bincount(rng.randint(0, n, n), minlength=n)
    freedom, level = max(1, n - 1), (1 + CONFIDENCE) / 2
    widened = math.sqrt(n / freedom) * stdtrit(freedom, level) / ndtri(level)
    return (1 + (weights - 1) * np.float32(widened)) / np.float32(n)
