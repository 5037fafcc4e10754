"""Supervised contrast with a denominator that counts classes, not images (Zhu et al., CVPR 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(features: Tensor) -> Tensor:
    """Return features (..., D) at unit norm, in float32."""
    return F.normalize(features.float(), dim=-1)


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """Return left (N, D) @ right (M, D)^T as they are, whatever autocast would round them to."""
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

    Anchors are the features (N, D), contrasted with each other and with one center per class (C, D) where
    given; P(i) is everything else of the anchor's class. D_i = sum_{j != i} exp(z_i z_j / t) / w_ij, with
    w_ij the size of j's class, one less for positives, at least 1: the average within each class.

    Args:
        class_sizes: (C,) how many entries of each class are counted. BCL counts what is contrasted, views
            and center; quirk: BCCL counts images, so a class of V views is divided by V times too little.
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
    """Count the labels (N,) of each class, (C,), without asking the device."""
    return torch.zeros(classes, device=labels.device).index_add(
        0, labels, torch.ones(len(labels), device=labels.device)
    )
