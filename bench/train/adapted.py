"""Scoring a method that adapts (`Method.adapts`) on test sets with a tail of their own."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from bench.method import Method
from bench.metrics import agnostic


@torch.inference_mode()
def adapted_accuracies(
    method: Method, batches: Iterable[Tensor], labels: np.ndarray, class_counts: np.ndarray
) -> dict[str, float]:
    """Return the accuracy on each of `agnostic.TEST_SETS`, percent, after adapting to it.

    Images are weighted instead of left out, so that what papers estimate from a sample is its expectation.

    Args:
        batches: of normalised test images, whose `labels` (N,) the method is not given.
        class_counts: (C,), of the training set.
    """
    method.eval()
    logits = torch.cat([method.member_logits(images).float().cpu() for images in batches])
    tested = np.bincount(labels, minlength=len(class_counts))
    found = {}
    device = method.class_counts.device
    for name, ratio in agnostic.TEST_SETS.items():
        weights = agnostic.shares(class_counts, ratio)[labels] / tested[labels]
        adapted = method.adapt(logits.to(device), torch.from_numpy(weights).to(device))
        hits = adapted.argmax(dim=1).cpu().numpy() == labels
        found[name] = float(100 * weights @ hits / weights.sum())
    return found
