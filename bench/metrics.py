"""What is said of a model's test scores: computed from stored logits, so it can be said again.

All shares are percent. What there is nothing to compute from is None (n/a), never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from bench.cell import ShotRule
from bench.data.longtail import shot_groups
from bench.errors import BenchError

#: Bins of the calibration error, as is usual (Guo et al., ICML 2017).
BINS = 15

#: Rows of logits that are looked at together: bounds the memory that iNaturalist's 8142 classes take.
CHUNK = 4096


@dataclass(frozen=True)
class Metric:
    """What is shown of a metric: a column's head, and what is explained of it."""

    head: str
    help: str


_GROUP = "mean accuracy of the classes with this many training images"

#: The metrics that tables show of a run, by their names in a record; the first decides a rank.
METRICS = {
    "accuracy": Metric(
        "accuracy (last epoch)",
        "test accuracy in percent after the last epoch, mean ± standard deviation over seeds. Bold: the best "
        "measured over three seeds or more, all of them whose difference to it over common seeds may be "
        "noise (t test at 5 %, its variance shared by the league: the median over rows), and the best "
        "published. Italics: one seed; one or two are never bold. Of several reports it is the authors' own, "
        "else the median; the range stands below, its sources on hover",
    ),
    "many": Metric("many", _GROUP),
    "medium": Metric("medium", _GROUP),
    "few": Metric("few", _GROUP),
    "balanced": Metric("balanced", "mean over classes of their accuracies"),
    "worst_class": Metric("worst class", "the lowest accuracy of a class"),
    "harmonic": Metric("harmonic", "harmonic mean over classes of their accuracies"),
    "ece": Metric("ECE", "expected calibration error: how far confidence is from accuracy, 15 bins"),
}

#: Those that a method is ranked and printed in bold by.
RANKED = ("accuracy", "many", "medium", "few")


class Score(TypedDict):
    """Percent, or None where no class has what is asked for.

    `many`, `medium`, `few` and `balanced` are means over classes of their accuracies, `worst_class` and
    `harmonic` their minimum and harmonic mean, `per_class` all of them, None for a class without test
    images. `ece` is the expected calibration error of the softmax over the scores.
    """

    accuracy: float
    many: float | None
    medium: float | None
    few: float | None
    balanced: float
    worst_class: float
    harmonic: float
    ece: float
    per_class: list[float | None]


def score(logits: np.ndarray, labels: np.ndarray, class_counts: np.ndarray, shots: ShotRule) -> Score:
    """Score logits (N, C) against labels (N,), with classes grouped by training counts (C,).

    A group's accuracy is the mean over its classes that have test images (as in the shot accuracies of
    Liu et al., CVPR 2019), not over its images.

    Raises:
        BenchError: scores that are not finite, as of a run that diverged.
        ValueError: shapes that do not fit, or labels out of range.
    """
    logits, labels, counts = np.asarray(logits), np.asarray(labels), np.asarray(class_counts)
    if logits.ndim != 2 or not len(logits) or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} do not fit")
    classes = logits.shape[1]
    if counts.shape != (classes,):
        raise ValueError(f"logits have {classes} classes, class counts {counts.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}")

    predictions, confidence = _predict(logits)
    hit = predictions == labels
    tested = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[hit], minlength=classes)
    per_class = np.divide(100.0 * hits, tested, out=np.full(classes, np.nan), where=tested > 0)

    def mean(chosen: list[int]) -> float | None:
        values = [per_class[c] for c in chosen if tested[c]]
        return float(np.mean(values)) if values else None

    groups = shot_groups(counts, shots)
    present = per_class[tested > 0]
    return {
        "accuracy": float(100 * hit.mean()),
        "many": mean(groups["many"]),
        "medium": mean(groups["medium"]),
        "few": mean(groups["few"]),
        "balanced": float(present.mean()),
        "worst_class": float(present.min()),
        # One class that is never hit makes the harmonic mean zero: its limit, and no division by 0.
        "harmonic": float(len(present) / (1 / present).sum()) if present.all() else 0.0,
        "ece": _calibration_error(confidence, hit),
        "per_class": [None if np.isnan(value) else float(value) for value in per_class],
    }


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Count test images by class (rows) and predicted class (columns): (classes, classes) int64."""
    cells = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _predict(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first best class (N,) and its softmax (N,) in float64."""
    predictions, confidence = [], []
    for start in range(0, len(logits), CHUNK):
        rows = logits[start : start + CHUNK].astype(np.float64)
        if not np.isfinite(rows).all():
            raise BenchError("the test scores hold a NaN or an infinity; lower the learning rate")
        predictions.append(rows.argmax(axis=1))
        top = rows.max(axis=1, keepdims=True)
        confidence.append(1 / np.exp(rows - top).sum(axis=1))
    return np.concatenate(predictions), np.concatenate(confidence)


def _calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Mean over images of |accuracy - confidence| of their bin; bins are (i/15, (i+1)/15]."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=hit - confidence, minlength=BINS)
    return float(100 * np.abs(gaps).sum() / len(hit))
