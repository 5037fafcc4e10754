"""The test-agnostic track: accuracies on long-tailed test sets, after SADE (NeurIPS 2022).

Class shares fall exponentially by a ratio: `forward` in the order of the training counts, `backward` in the
reverse order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: The ratios of SADE's protocol.
RATIOS = (50, 25, 10, 5, 2)

#: The test sets in table order, each with its ratio, which is below 1 for a backward one.
TEST_SETS: Mapping[str, float] = {
    **{f"forward {ratio}": float(ratio) for ratio in RATIOS},
    "uniform": 1.0,
    **{f"backward {ratio}": 1 / ratio for ratio in reversed(RATIOS)},
}


def shares(class_counts: np.ndarray, ratio: float) -> np.ndarray:
    """Return the class shares (C,) of a test set, proportional to ratio^(-r / (C - 1)); they sum to 1.

    r is the rank by training count (C,), largest class first; equal counts rank by label.
    """
    rank = np.empty(len(class_counts))
    rank[np.argsort(-np.asarray(class_counts), kind="stable")] = np.linspace(0, 1, len(class_counts))
    weights = ratio**-rank
    return weights / weights.sum()


def weighted(accuracies: np.ndarray, class_counts: np.ndarray, ratio: float) -> float:
    """Return the expected accuracy on a test set with these `shares`, from class accuracies (C,).

    The papers estimate it from one sampled test set. A class without test images (NaN) has no share.
    """
    weights = np.where(np.isnan(accuracies), 0.0, shares(class_counts, ratio))
    return float(weights @ np.nan_to_num(accuracies) / weights.sum())


def track(accuracies: np.ndarray, class_counts: np.ndarray) -> dict[str, float]:
    """Return the accuracy on each of `TEST_SETS`."""
    return {name: weighted(accuracies, class_counts, ratio) for name, ratio in TEST_SETS.items()}
