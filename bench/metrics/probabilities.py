"""Calibration of a model's probabilities, over all test images and by shot group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from bench.errors import BenchError

#: Bins of all calibration errors (Guo et al., ICML 2017).
BINS = 15

#: Rows and values of logits processed at once: bounds the memory for iNaturalist's 8142 classes.
CHUNK, CHUNK_NUMBERS = 4096, 2**23


class Calibration(TypedDict):
    """Calibration over the images of some classes, in percent; `nll` in nats, `brier` from 0 to 2.

    `ece` has bins of equal width, `adaptive_ece` of equal numbers of images (Nguyen and O'Connor, EMNLP
    2015); both use the probability of the predicted class. `classwise_ece` is the mean over these classes of
    the error of the class's probability over all test images, in bins of equal width (Kull et al., NeurIPS
    2019).
    """

    images: int
    accuracy: float
    confidence: float
    ece: float
    adaptive_ece: float
    classwise_ece: float
    nll: float
    brier: float


@dataclass(frozen=True)
class Predicted:
    """The predicted class of each image (N,), its probability, and whether it is correct."""

    classes: np.ndarray
    confidence: np.ndarray
    hit: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> Predicted:
        """Predict the class with the largest logit (N, C), the first of equal ones."""
        classes, confidence = [], []
        for _, logs in _log_probabilities(logits):
            classes.append(logs.argmax(axis=1))
            confidence.append(np.exp(logs.max(axis=1)))
        predicted = np.concatenate(classes)
        return cls(predicted, np.concatenate(confidence), predicted == labels)


def calibration(
    logits: np.ndarray, labels: np.ndarray, groups: Mapping[str, Sequence[int]]
) -> dict[str, Calibration | None]:
    """Return the calibration over the images of each group of classes; None for a group without images.

    Args:
        logits: (N, C), finite.
        labels: (N,).
        groups: the classes of each group.
    """
    classes = logits.shape[1]
    nll, brier = np.empty(len(labels)), np.empty(len(labels))
    gaps = np.zeros(classes * BINS)
    for start, logs in _log_probabilities(logits):
        chunk, rows = slice(start, start + len(logs)), np.arange(len(logs))
        nll[chunk] = -logs[rows, labels[chunk]]
        errors = np.exp(logs)
        bins = _bins(errors) + BINS * np.arange(classes)
        errors[rows, labels[chunk]] -= 1
        brier[chunk] = (errors**2).sum(axis=1)
        gaps += np.bincount(bins.reshape(-1), weights=errors.reshape(-1), minlength=len(gaps))
    class_errors = np.abs(gaps.reshape(classes, BINS)).sum(axis=1) / len(labels)
    predicted = Predicted.of(logits, labels)
    found: dict[str, Calibration | None] = {}
    for name, members in groups.items():
        inside = np.isin(labels, members)
        if not inside.any():
            found[name] = None
            continue
        confidence, hit = predicted.confidence[inside], predicted.hit[inside]
        found[name] = {
            "images": int(inside.sum()),
            "accuracy": float(100 * hit.mean()),
            "confidence": float(100 * confidence.mean()),
            "ece": equal_width(confidence, hit),
            "adaptive_ece": equal_mass(confidence, hit),
            "classwise_ece": float(100 * class_errors[list(members)].mean()),
            "nll": float(nll[inside].mean()),
            "brier": float(brier[inside].mean()),
        }
    return found


def equal_width(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Return ECE: the mean over images of |accuracy - confidence| in their bin; bins are (i/15, (i+1)/15]."""
    gaps = np.bincount(_bins(confidence), weights=hit - confidence, minlength=BINS)
    return float(100 * np.abs(gaps).sum() / len(hit))


def equal_mass(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Return ECE with bins of equal numbers of images."""
    parts = np.array_split((hit - confidence)[np.argsort(confidence, kind="stable")], BINS)
    return float(100 * sum(abs(part.sum()) for part in parts) / len(hit))


def _bins(probabilities: np.ndarray) -> np.ndarray:
    return np.clip(np.ceil(probabilities * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _log_probabilities(logits: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the log-softmax (float64) of chunks of rows, each with the index of its first row."""
    size = max(1, min(CHUNK, CHUNK_NUMBERS // logits.shape[1]))
    for start in range(0, len(logits), size):
        rows = logits[start : start + size].astype(np.float64)
        if not np.isfinite(rows).all():
            raise BenchError("the test logits hold a NaN or an infinity; lower the learning rate")
        rows -= rows.max(axis=1, keepdims=True)
        yield start, rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
