"""Weight balancing: limits on the norms of a classifier's weights (Alshammari et al., CVPR 2022)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.method import Batch, Clock, MakeBackbone, Method
from bench.registry import register
from methods.parts.frozen import BatchNorm, FrozenBackbone


@register("weight_balancing", golden=True)
class WeightBalancing(FrozenBackbone):
    """A trained linear classifier, trained further with class weights, weight decay and a limit on its norms.

    The authors' parent is cross-entropy with weight decay 5e-3; this stage has weight decay 0.1. Both are set
    in the recipe. After each step rows longer than the limit are shortened to it; the bias has no limit.

    Args:
        limit: on the norms, from the parent's shortest row (0) to its longest (1).
        beta: of the effective number of samples, for the class weights.
        batch_norm: of the frozen backbone, see "crt".
    """

    keeps_head = True
    head: nn.Linear
    max_norm: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        limit: float = 0.1,
        beta: float = 0.9999,
        batch_norm: BatchNorm = "train",
    ) -> None:
        super().__init__(make_backbone, class_counts, batch_norm=batch_norm, reweight_from=0.0, beta=beta)
        self.limit = limit
        self.register_buffer("max_norm", torch.zeros(()))

    def start_from(self, parent: Method) -> None:
        super().start_from(parent)
        self.max_norm.copy_(norm_limit(self.head.weight, self.limit))

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return binary_class_balanced_loss(outputs, labels, self.class_weights.now)

    def after_step(self, clock: Clock, batch: Batch) -> None:
        # the authors' code does this only after the last step of an epoch
        self.head.weight.data.copy_(within_norm(self.head.weight.data, self.max_norm))


def norm_limit(weight: Tensor, share: float) -> Tensor:
    """Return the norm at that share between the shortest and the longest row of (C, D)."""
    norms = weight.detach().norm(dim=1)
    return norms.min() + share * (norms.max() - norms.min())


def within_norm(weight: Tensor, limit: Tensor) -> Tensor:
    """Return weight (C, D) with rows longer than the limit shortened to it."""
    norms = weight.norm(dim=1, keepdim=True)
    return torch.where(norms > limit, weight * (limit / norms), weight)


def binary_class_balanced_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Return the mean over B and C of w_y times the binary cross-entropy of each softmax probability.

    quirk: the authors' class-balanced "softmax" loss is this, not softmax cross-entropy.
    """
    weights = class_weights[labels, None].expand_as(logits)
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = logits.float().softmax(dim=1)
        targets = F.one_hot(labels, logits.shape[1]).float()
        return F.binary_cross_entropy(probabilities, targets, weights)
