"""How far the probabilities of a model can be trusted: over all test images and by shot group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from bench.errors import BenchError

#: Bins of all calibration errors, as is usual (Guo et al., ICML 2017).
BINS = 15

#: Rows and numbers of logits looked at together: bounds the memory that iNaturalist's 8142 classes take.
CHUNK, CHUNK_NUMBERS = 4096, 2**23


class Calibration(TypedDict):
    """Of the images of some classes; percent but for `nll` (nats), and `brier`, which goes from 0 to 2.

    `ece` has bins of equal width, `adaptive_ece` of equal numbers of images (Nguyen and O'Connor, EMNLP
    2015): both are of the predicted class. `classwise_ece` is the mean over the classes of the error of each
    class's probability over all test images, in bins of equal width (Kull et al., NeurIPS 2019).
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
    """Of each image its predicted class (N,), the probability of that, and whether it is right."""

    classes: np.ndarray
    confidence: np.ndarray
    hit: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> Predicted:
        """Predict the first best class of logits (N, C)."""
        classes, confidence = [], []
        for _, logs in _log_probabilities(logits):
            classes.append(logs.argmax(axis=1))
            confidence.append(np.exp(logs.max(axis=1)))
        predicted = np.concatenate(classes)
        return cls(predicted, np.concatenate(confidence), predicted == labels)


def calibration(
    logits: np.ndarray, labels: np.ndarray, groups: Mapping[str, Sequence[int]]
) -> dict[str, Calibration | None]:
    """Return the calibration over the images of each group of classes, None of a group without images.

    Args:
        logits: (N, C), finite.
        labels: (N,).
        groups: classes by the name of their group.
    """
    classes = logits.shape[1]
    nll, brier = np.empty(len(labels)), np.empty(len(labels))
    gaps = np.zeros(classes * BINS)
    for start, logs in _log_probabilities(logits):
        own = labels[start : start + len(logs)]
        rows = np.arange(len(logs))
        nll[start : start + len(logs)] = -logs[rows, own]
        shares = np.exp(logs)
        offset = _bins(shares) + BINS * np.arange(classes)
        shares[rows, own] -= 1
        brier[start : start + len(logs)] = (shares**2).sum(axis=1)
        gaps += np.bincount(offset.reshape(-1), weights=shares.reshape(-1), minlength=len(gaps))
    of_class = np.abs(gaps.reshape(classes, BINS)).sum(axis=1) / len(labels)
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
            "classwise_ece": float(100 * of_class[list(members)].mean()),
            "nll": float(nll[inside].mean()),
            "brier": float(brier[inside].mean()),
        }
    return found


def equal_width(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Return the mean over images of |accuracy - confidence| of their bin; bins are (i/15, (i+1)/15]."""
    gaps = np.bincount(_bins(confidence), weights=hit - confidence, minlength=BINS)
    return float(100 * np.abs(gaps).sum() / len(hit))


def equal_mass(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Return the same with bins of equal numbers of images, by their confidence."""
    rising = np.argsort(confidence, kind="stable")
    parts = np.array_split((hit - confidence)[rising], BINS)
    return float(100 * sum(abs(part.sum()) for part in parts) / len(hit))


def _bins(shares: np.ndarray) -> np.ndarray:
    return np.clip(np.ceil(shares * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _log_probabilities(logits: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Give the logarithms of the softmax, rows at a time and where they begin, in float64."""
    size = max(1, min(CHUNK, CHUNK_NUMBERS // logits.shape[1]))
    for start in range(0, len(logits), size):
        rows = logits[start : start + size].astype(np.float64)
        if not np.isfinite(rows).all():
            raise BenchError("the test scores hold a NaN or an infinity; lower the learning rate")
        rows -= rows.max(axis=1, keepdims=True)
        yield start, rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
