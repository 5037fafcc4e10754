"""LADE: label-distribution disentangling loss (Hong et al., CVPR 2021)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bench.method import MakeBackbone
from bench.registry import register
from methods.logit_adjustment import LogitAdjustment


@register("lade", golden=True)
class LADE(LogitAdjustment):
    """Logit-adjusted cross-entropy, plus a bound that keeps the training prior out of the logits.

    The authors' (alpha, remine) are (0.1, 0.01) on CIFAR-100-LT, the default, (0.05, 0.5) on ImageNet-LT
    and iNaturalist, and (0.005, 0.1) on Places-LT.

    Args:
        alpha: weight of the bound.
        remine: of the square that regularises the bound.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        alpha: float = 0.1,
        remine: float = 0.01,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.alpha, self.remine = alpha, remine

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        bound = lade_bound(outputs.float(), labels, self.log_prior, self.remine)
        return super().criterion(outputs, labels) - self.alpha * bound


def lade_bound(logits: Tensor, labels: Tensor, log_prior: Tensor, remine: float) -> Tensor:
    """Return sum_c pi_c (a_c - b_c - remine b_c^2), the regularised Donsker-Varadhan bound (eq. 9).

    a_c is the mean of z_c over the batch's images of class c, or 0 if there are none; b_c is the log of the
    mean of exp(z_c - log pi_c - log C) over all images.
    """
    size, classes = logits.shape
    is_label = F.one_hot(labels, classes)
    own = (is_label * logits).sum(dim=0) / is_label.sum(dim=0).clamp(min=1)
    joint = (logits - log_prior - math.log(classes)).logsumexp(dim=0) - math.log(size)
    return (log_prior.exp() * (own - joint - remine * joint**2)).sum()
