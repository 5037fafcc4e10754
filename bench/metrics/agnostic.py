"""The test-agnostic track: accuracies on test sets with a tail of their own, after SADE (NeurIPS 2022).

Class shares fall exponentially by a ratio: `forward` in the order of the training counts, `backward` against
it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: The ratios of SADE's protocol.
RATIOS = (50, 25, 10, 5, 2)

#: The test sets in the order of a table, each with its ratio; that of a backward one is below 1.
TEST_SETS: Mapping[str, float] = {
    **{f"forward {ratio}": float(ratio) for ratio in RATIOS},
    "uniform": 1.0,
    **{f"backward {ratio}": 1 / ratio for ratio in reversed(RATIOS)},
}


def shares(class_counts: np.ndarray, ratio: float) -> np.ndarray:
    """Return the shares (C,) of a test set, summing to one: ratio^(-r / (C - 1)) of the class at rank r.

    Ranks follow the training counts (C,), the largest class first, equal ones in the order of their labels.
    """
    rank = np.empty(len(class_counts))
    rank[np.argsort(-np.asarray(class_counts), kind="stable")] = np.linspace(0, 1, len(class_counts))
    weights = ratio**-rank
    return weights / weights.sum()


def weighted(accuracies: np.ndarray, class_counts: np.ndarray, ratio: float) -> float:
    """Return the accuracy on a test set of such shares, of class accuracies (C,): its expectation.

    So nothing is drawn, where the papers estimate it from one sample. A class without test images, whose
    accuracy is NaN, has no share.
    """
    weights = np.where(np.isnan(accuracies), 0.0, shares(class_counts, ratio))
    return float(weights @ np.nan_to_num(accuracies) / weights.sum())


def track(accuracies: np.ndarray, class_counts: np.ndarray) -> dict[str, float]:
    """Return the accuracy on each of `TEST_SETS`."""
    return {name: weighted(accuracies, class_counts, ratio) for name, ratio in TEST_SETS.items()}
