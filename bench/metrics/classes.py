"""Metrics that follow from the accuracies of the classes, or from the confusion of classes.

Every record has class accuracies, so these are known of all runs, however old. Percent, and None where there
is nothing to compute from. The tests hold them to scikit-learn's and SciPy's where these have them; to import
either takes longer than to write a page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ByClass:
    """What a test of a model tells of its classes.

    Attributes:
        accuracies: (C,) percent, NaN for a class without test images.
        confusion: (C, C) test images by class and predicted class, None where it was not kept.
    """

    accuracies: np.ndarray
    confusion: np.ndarray | None = None

    @property
    def present(self) -> np.ndarray:
        """The accuracies of the classes that have test images."""
        return self.accuracies[~np.isnan(self.accuracies)]


def balanced(tested: ByClass) -> float:
    """Return the mean of the class accuracies."""
    return float(tested.present.mean())


def worst_class(tested: ByClass) -> float:
    """Return the lowest class accuracy."""
    return float(tested.present.min())


def worst_tenth(tested: ByClass) -> float:
    """Return the mean of the lowest tenth of the class accuracies, at least one."""
    lowest = np.sort(tested.present)
    return float(lowest[: math.ceil(len(lowest) / 10)].mean())


def harmonic(tested: ByClass) -> float:
    """Return the harmonic mean of the class accuracies; a class that is never hit makes it 0, its limit."""
    present = tested.present
    return float(len(present) / (1 / present).sum()) if present.all() else 0.0


def geometric(tested: ByClass) -> float:
    """Return the geometric mean of the class accuracies (Kubat and Matwin, ICML 1997)."""
    present = tested.present
    return float(np.exp(np.log(present).mean())) if present.all() else 0.0


def macro_f1(tested: ByClass) -> float | None:
    """Return the mean of F1 = 2 hits / (test images + predictions) over classes with test images."""
    matrix = tested.confusion
    return None if matrix is None else mean_f1(np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0))


def mean_f1(hits: np.ndarray, tests: np.ndarray, predictions: np.ndarray) -> float:
    """Return the same, in percent, from hits, test images and predictions of each class, (C,) each."""
    of_class = 2 * hits / np.maximum(tests + predictions, 1)
    return float(100 * of_class[tests > 0].mean())


def inequality(tested: ByClass) -> float | None:
    """Return the Gini coefficient of the class accuracies, in percent: 0 where all are equal."""
    present = tested.present
    return 100 * gini(present) if present.any() else None


def gini(values: np.ndarray) -> float:
    """Return the Gini coefficient of values (n,), none negative: sum_ij |v_i - v_j| / (2 n^2 mean)."""
    rising = np.sort(np.asarray(values, dtype=np.float64))
    n = len(rising)
    return float((2 * np.arange(1, n + 1) - n - 1) @ rising / (n * rising.sum()))


def pareto_ratio(counts: np.ndarray, share: float = 0.8) -> float:
    """Return (C - q) / q, where the q largest classes have `share` of the images: 0.25 where all are equal.

    A tail by the 80:20 rule has 4; surveys call it the Pareto-LT ratio.
    """
    falling = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    reached = np.cumsum(falling) >= share * falling.sum() * (1 - 1e-12)
    q = int(np.argmax(reached)) + 1
    return (len(falling) - q) / q
