"""Metrics computed from class accuracies or from the confusion matrix.

Every record has class accuracies, so these exist for all runs, however old. Percent; None without data. The
tests compare them with scikit-learn and SciPy, which are not used here because importing either takes longer
than writing a page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ByClass:
    """Test results by class.

    Attributes:
        accuracies: (C,) percent, NaN for a class without test images.
        confusion: (C, C) test images by true and predicted class, None if it was not kept.
    """

    accuracies: np.ndarray
    confusion: np.ndarray | None = None

    @property
    def present(self) -> np.ndarray:
        """The accuracies of the classes that have test images."""
        return self.accuracies[~np.isnan(self.accuracies)]


def class_accuracies(hits: np.ndarray, tests: np.ndarray) -> np.ndarray:
    """Return accuracies (C,) in percent from hits and test images (C,); NaN for a class without images."""
    return np.divide(100.0 * hits, tests, out=np.full(len(tests), np.nan), where=tests > 0)


def balanced(tested: ByClass) -> float:
    """Return the mean of the class accuracies."""
    return float(tested.present.mean())


def worst_class(tested: ByClass) -> float:
    """Return the lowest class accuracy."""
    return float(tested.present.min())


def worst_tenth(tested: ByClass) -> float:
    """Return the mean of the lowest tenth of the class accuracies, at least of one."""
    lowest = np.sort(tested.present)
    return float(lowest[: math.ceil(len(lowest) / 10)].mean())


def harmonic(tested: ByClass) -> float:
    """Return the harmonic mean of the class accuracies; 0, its limit, if one of them is 0."""
    present = tested.present
    return float(len(present) / (1 / present).sum()) if present.all() else 0.0


def geometric(tested: ByClass) -> float:
    """Return the geometric mean of the class accuracies (Kubat and Matwin, ICML 1997)."""
    present = tested.present
    return float(np.exp(np.log(present).mean())) if present.all() else 0.0


def macro_f1(tested: ByClass) -> float | None:
    """Return the mean over classes with test images of F1 = 2 hits / (test images + predictions)."""
    matrix = tested.confusion
    return None if matrix is None else mean_f1(np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0))


def mean_f1(hits: np.ndarray, tests: np.ndarray, predictions: np.ndarray) -> float:
    """Return macro F1 in percent from the hits, test images and predictions of each class, (C,) each."""
    f1 = 2 * hits / np.maximum(tests + predictions, 1)
    return float(100 * f1[tests > 0].mean())


def inequality(tested: ByClass) -> float | None:
    """Return the Gini coefficient of the class accuracies in percent; 0 if all are equal."""
    present = tested.present
    return 100 * gini(present) if present.any() else None


def gini(values: np.ndarray) -> float:
    """Return the Gini coefficient of non-negative values (n,): sum_ij |v_i - v_j| / (2 n^2 mean)."""
    rising = np.sort(np.asarray(values, dtype=np.float64))
    n = len(rising)
    return float((2 * np.arange(1, n + 1) - n - 1) @ rising / (n * rising.sum()))


def pareto_ratio(counts: np.ndarray) -> float:
    """Return (C - q) / q, where the q largest classes hold 80 % of the images.

    0.25 if all classes are equal, 4 for a tail by the 80:20 rule; surveys call it the Pareto-LT ratio.
    """
    falling = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    reached = np.cumsum(falling) >= 0.8 * falling.sum() * (1 - 1e-12)
    q = int(np.argmax(reached)) + 1
    return (len(falling) - q) / q
