"""Metrics of logits: those that a record keeps, and all others."""

from __future__ import annotations

from typing import TypedDict, cast

import numpy as np

from bench.cell import ShotRule
from bench.data.split.longtail import shot_groups
from bench.metrics import classes
from bench.metrics.classes import ByClass
from bench.metrics.probabilities import Calibration, Predicted, calibration, equal_width
from bench.metrics.table import METRICS, value


class Score(TypedDict):
    """The metrics under `metrics` of a record, in percent; None for an empty group or class.

    `many`, `medium`, `few` and `balanced` are means of class accuracies, `worst_class` and `harmonic` their
    minimum and harmonic mean, `per_class` all of them. `ece` is the expected calibration error of the
    softmax.
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


class FullScore(Score):
    """`Score` and the other metrics of `bench.metrics.METRICS`."""

    worst_tenth: float
    geometric: float
    macro_f1: float
    gini: float | None
    adaptive_ece: float
    classwise_ece: float
    nll: float
    brier: float


def score(logits: np.ndarray, labels: np.ndarray, class_counts: np.ndarray, shots: ShotRule) -> Score:
    """Score logits (N, C) against labels (N,), with classes grouped by training counts (C,).

    A group's accuracy is the mean over its classes that have test images, not over its images (Liu et al.,
    CVPR 2019).

    Raises:
        BenchError: logits that are not finite, as of a run that diverged.
        ValueError: shapes that do not match, or labels out of range.
    """
    logits, labels, counts = np.asarray(logits), np.asarray(labels), np.asarray(class_counts)
    if logits.ndim != 2 or not len(logits) or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} do not fit")
    size = logits.shape[1]
    if counts.shape != (size,):
        raise ValueError(f"logits have {size} classes, class counts {counts.shape}")
    if labels.min() < 0 or labels.max() >= size:
        raise ValueError(f"labels must lie in 0..{size - 1}")

    predicted = Predicted.of(logits, labels)
    tests = np.bincount(labels, minlength=size)
    hits = np.bincount(labels[predicted.hit], minlength=size)
    tested = ByClass(classes.class_accuracies(hits, tests))
    groups = shot_groups(counts, shots)

    def mean(group: str) -> float | None:
        values = [tested.accuracies[c] for c in groups[group] if tests[c]]
        return float(np.mean(values)) if values else None

    return {
        "accuracy": float(100 * predicted.hit.mean()),
        "many": mean("many"),
        "medium": mean("medium"),
        "few": mean("few"),
        "balanced": classes.balanced(tested),
        "worst_class": classes.worst_class(tested),
        "harmonic": classes.harmonic(tested),
        "ece": equal_width(predicted.confidence, predicted.hit),
        "per_class": [None if np.isnan(value) else float(value) for value in tested.accuracies],
    }


class Further(TypedDict):
    """The metrics under `further_metrics` of a record; calibration by shot group and over `all` classes."""

    macro_f1: float
    calibration: dict[str, Calibration | None]


def further(logits: np.ndarray, labels: np.ndarray, class_counts: np.ndarray, shots: ShotRule) -> Further:
    """Return the slower metrics that `score` leaves out; arguments and errors are those of `score`."""
    logits, labels, counts = np.asarray(logits), np.asarray(labels), np.asarray(class_counts)
    size = logits.shape[1]
    groups = {"all": list(range(size)), **shot_groups(counts, shots)}
    predicted = logits.argmax(axis=1)
    hits, tests, predictions = (
        np.bincount(some, minlength=size) for some in (labels[predicted == labels], labels, predicted)
    )
    return {
        "macro_f1": classes.mean_f1(hits, tests, predictions),
        "calibration": calibration(logits, labels, groups),
    }


def full_score(
    logits: np.ndarray, labels: np.ndarray, class_counts: np.ndarray, shots: ShotRule
) -> FullScore:
    """Return all metrics; arguments and errors are those of `score`."""
    kept = score(logits, labels, class_counts, shots)
    record = {"metrics": kept, "further_metrics": further(logits, labels, class_counts, shots)}
    others = {name: value(name, record, lambda: None) for name in METRICS if name not in kept}
    return cast(FullScore, {**kept, **others})


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Count test images by true class (rows) and predicted class (columns): (classes, classes) int64."""
    cells = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
