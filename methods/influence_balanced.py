"""Influence-balanced loss (Park et al., ICCV 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import Clock, MakeBackbone
from bench.registry import register
from methods.parts.classifier import Classifier


@register("ib", golden=True, reweight_from=0.5, beta=1.0)
@register("ib_cb", golden=True, reweight_from=0.5)
@register("ib_focal", golden=True, reweight_from=0.5, beta=1.0, gamma=1.0)
class InfluenceBalanced(Classifier):
    """Cross-entropy in which influential images count less, once the class weights apply.

    The authors divide the learning rate by 100 from that epoch on, which is part of the protocol.

    Args:
        alpha: scale of the loss; 1000 in the authors' script.
        gamma: of a focal factor (IB + Focal); 0 for none.
    """

    balancing: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        alpha: float = 1000.0,
        gamma: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.alpha, self.gamma = alpha, gamma
        self.register_buffer("balancing", torch.tensor(False))

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        self.balancing.fill_(self.class_weights.on(clock))

    def loss_of_features(self, features: Tensor, labels: Tensor) -> Tensor:
        logits = self.training_outputs(features, labels)
        weights = self.class_weights.now
        balanced = ib_loss(logits, features, labels, weights, self.alpha, self.gamma)
        main = torch.where(self.balancing, balanced, F.cross_entropy(logits, labels))
        return main + self.auxiliary_loss(features, labels)


def ib_loss(
    logits: Tensor, features: Tensor, labels: Tensor, class_weights: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Return the batch mean of w_y CE alpha / (|p - onehot|_1 |f|_1 + 0.001), eq. 10.

    quirk: the factor, a weight in the paper, has a gradient in the authors' code, also to the features; and
    the focal factor is (1 - q)^gamma with q = exp(-w_y CE), which includes the class weight.
    """
    ce = F.cross_entropy(logits, labels, class_weights, reduction="none")
    errors = F.softmax(logits, dim=1) - F.one_hot(labels, logits.shape[1])
    influence = errors.abs().sum(dim=1) * features.float().abs().sum(dim=1)
    losses = ce * alpha / (influence + 1e-3)
    if gamma:
        losses = losses * (1 - torch.exp(-ce)).clamp(min=torch.finfo(ce.dtype).tiny) ** gamma
    return losses.mean()
