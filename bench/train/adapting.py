"""Adapting a trained method to test sets of unknown class distribution, by their unlabelled images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data import longtail
from bench.data.loader import Loader
from bench.data.split import InMemory
from bench.method import Method
from bench.metrics import agnostic
from bench.metrics.adapt import expert_weights
from bench.randomness import generator


def adapted(method: Method, loader: Loader, seed: int) -> dict[str, Any] | None:
    """Return for each test set of the track the accuracy of the adapted method and its experts' weights.

    For each test set unlabelled images are drawn as SADE does, and the weights learnt from two views of each.
    The accuracy is then the expectation over all test images, as of what does not adapt. None of a method
    that does not adapt, and of images that stay on disk, of which no such views are made.

    Returns:
        `accuracy` in percent, and `weights` (K), by the names of `bench.metrics.agnostic.TEST_SETS`.
    """
    split = loader.split
    if not method.test_views or not isinstance(split, InMemory):
        return None
    labels, counts = split.test_labels, split.class_counts
    plain = _expert_scores(method, (images for images, _ in loader.test()))
    views = np.stack([_expert_scores(method, loader.test_view(method.test_views, i)) for i in range(2)])
    accuracy, weights = {}, {}
    for name, ratio in agnostic.TEST_SETS.items():
        drawn = longtail.select(labels, drawn_counts(labels, counts, ratio))
        order = generator("adapt", name, seed).permutation(len(drawn))
        found = expert_weights(views[:, drawn], order=order)
        hit = np.einsum("k,nkc->nc", found, plain).argmax(axis=1) == labels
        accuracy[name] = agnostic.weighted(_class_accuracies(hit, labels, len(counts)), counts, ratio)
        weights[name] = [round(float(weight), 4) for weight in found]
    return {"accuracy": accuracy, "weights": weights}


def drawn_counts(labels: np.ndarray, class_counts: np.ndarray, ratio: float) -> np.ndarray:
    """Return how many test images (C,) a test set of the track has of each class, at least one.

    As in SADE: of the largest class all M that every class has, of the others int(M share / largest share).
    """
    tests = np.bincount(labels, minlength=len(class_counts))
    share = agnostic.shares(class_counts, ratio)
    most = tests[tests > 0].min()
    wanted = np.maximum(1, (most * share / share.max() * (1 + 1e-12)).astype(np.int64))
    return np.minimum(wanted, tests)


def _class_accuracies(hit: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    tests = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[hit], minlength=classes)
    return np.divide(100.0 * hits, tests, out=np.full(classes, np.nan), where=tests > 0)


@torch.inference_mode()
def _expert_scores(method: Method, batches: Iterable[Tensor]) -> np.ndarray:
    """Return the scores of each expert (N, K, C) of batches of normalised images, in their order."""
    method.eval()
    found = [method.expert_scores(images).float().transpose(0, 1).cpu().numpy() for images in batches]
    return np.concatenate(found).astype(np.float64)
