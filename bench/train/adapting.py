"""Adapting a trained method to test sets of unknown class distribution, from their unlabelled images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.feed.loader import Loader
from bench.data.split import longtail
from bench.data.split.load import InMemory
from bench.method import Method, Unlabelled
from bench.metrics import agnostic
from bench.randomness import generator


def adapted(method: Method, loader: Loader, seed: int) -> dict[str, Any] | None:
    """Return the `accuracy` of the adapted method on each test set of the track, in percent.

    None if the method does not adapt, or if it needs views of images that stay on disk.
    """
    split, views = loader.split, None
    if not method.adapts or (method.test_views and not isinstance(split, InMemory)):
        return None
    if method.test_views:
        views = torch.stack(
            [member_logits_of(method, loader.test_view(method.test_views, i)) for i in range(2)]
        )
    logits = member_logits_of(method, (images for images, _ in loader.test()))
    return {"accuracy": accuracies(method, logits, views, split.test_labels, split.class_counts, seed)}


@torch.inference_mode()
def accuracies(
    method: Method,
    logits: Tensor,
    views: Tensor | None,
    labels: np.ndarray,
    class_counts: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Return the expected accuracy on each of `agnostic.TEST_SETS` after adapting to it, in percent.

    Images are weighted instead of left out, so that only what a method learns from the sample depends on
    which images of a class are in a test set.

    Args:
        logits, views: as in `Unlabelled`.
        labels: (N,), hidden from the method.
        class_counts: (C,), of the training set.
    """
    tested, found = np.bincount(labels, minlength=len(class_counts)), {}
    for name, ratio in agnostic.TEST_SETS.items():
        weights = agnostic.shares(class_counts, ratio)[labels] / tested[labels]
        sample = longtail.select(labels, drawn_counts(labels, class_counts, ratio))
        sample = sample[generator("adapt", name, seed).permutation(len(sample))]
        test_set = Unlabelled(logits, views, torch.from_numpy(weights), torch.from_numpy(sample))
        hits = method.adapt(test_set).argmax(dim=1).cpu().numpy() == labels
        found[name] = float(100 * weights @ hits / weights.sum())
    return found


def drawn_counts(labels: np.ndarray, class_counts: np.ndarray, ratio: float) -> np.ndarray:
    """Return the number of test images of each class (C,) in a test set of the track, at least one.

    As in SADE: M, the smallest class's number of images, for the largest class, and int(M share / largest
    share) for the others.
    """
    tests = np.bincount(labels, minlength=len(class_counts))
    share = agnostic.shares(class_counts, ratio)
    most = tests[tests > 0].min()
    wanted = np.maximum(1, (most * share / share.max() * (1 + 1e-12)).astype(np.int64))
    return np.minimum(wanted, tests)


@torch.inference_mode()
def member_logits_of(method: Method, batches: Iterable[Tensor]) -> Tensor:
    """Return the members' logits (N, K, C) for batches of normalised images, in order."""
    method.eval()
    return torch.cat([method.member_logits(images).float() for images in batches])
