"""Supervised contrast with a denominator averaged by class (Zhu et al., CVPR 2022), and its helpers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(features: Tensor) -> Tensor:
    """Return features (..., D) at unit norm, in float32."""
    return F.normalize(features.float(), dim=-1)


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """Return left (N, D) @ right (M, D)^T in their own precision, without autocast."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right.T


def class_averaged_contrast(
    features: Tensor,
    labels: Tensor,
    temperature: float,
    class_sizes: Tensor,
    centers: Tensor | None = None,
) -> Tensor:
    """Return the mean over anchors i of -1/|P(i)| sum_{p in P(i)} log(exp(z_i z_p / t) / D_i).

    Anchors are the features (N, D), contrasted with each other and, if given, with one center per class (C,
    D); P(i) is the rest of the anchor's class. D_i = sum_{j != i} exp(z_i z_j / t) / w_ij, with w_ij the size
    of j's class, minus one for positives, at least 1: the average within each class.

    Args:
        class_sizes: (C,), the number of samples counted for each class. BCL counts views and center; quirk:
            BCCL counts images, so that the divisor of V views is V times too small.
    """
    others, other_labels = features, labels
    if centers is not None:
        others = torch.cat([features, centers])
        other_labels = torch.cat([labels, torch.arange(len(centers), device=labels.device)])
    logits = inner_products(features, others) / temperature
    itself = torch.eye(len(features), len(others), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == other_labels) & ~itself
    weights = (class_sizes[other_labels].to(logits) - positive.to(logits)).clamp(min=1)
    denominators = (logits - weights.log()).masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    log_p = (logits - denominators).masked_fill(~positive, 0)
    return -(log_p.sum(dim=1) / positive.sum(dim=1).clamp(min=1)).mean()


def count_of_class(labels: Tensor, classes: int) -> Tensor:
    """Count the labels (N,) of each class, (C,) float, without synchronising the device."""
    return torch.zeros(classes, device=labels.device).index_add(
        0, labels, torch.ones(len(labels), device=labels.device)
    )
