"""Balanced binary cross-entropy, the loss of LiVT (Xu et al., CVPR 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import MakeBackbone
from bench.registry import register
from methods.parts.classifier import Classifier
from methods.parts.weights import log_class_prior


@register("balanced_bce", golden=True)
class BalancedBCE(Classifier):
    """Binary cross-entropy of each class, its logit adjusted by the log odds of the class prior.

    LiVT fine-tunes a ViT-B/16 with it, after masked auto-encoding: "livt_pretrain", then "livt". Here it is
    only the loss, for any backbone.

    Args:
        smoothing: label smoothing.
    """

    scores = "balanced"
    log_odds: Tensor

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, smoothing: float = 0.1, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.smoothing = smoothing
        self.register_buffer("log_odds", log_class_odds(self.class_counts))

    def mean_over_images(self) -> bool:
        return not self.auxiliary

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        weights = self.class_weights.now[labels]
        losses = balanced_binary_losses(outputs, labels, self.log_odds, self.smoothing)
        return (weights * losses).mean()


def log_class_odds(class_counts: Tensor) -> Tensor:
    """Return log pi_c - log(1 - pi_c), (C,); an absent class counts as one image."""
    log_prior = log_class_prior(class_counts).double()
    return (log_prior - torch.log1p(-log_prior.exp()).clamp(min=-20)).float()


def balanced_binary_losses(logits: Tensor, labels: Tensor, log_odds: Tensor, smoothing: float) -> Tensor:
    """Return each image's sum over classes of BCE(z_c + log odds_c, y_c), (B,), with smoothed targets y."""
    classes = logits.shape[1]
    targets = (1 - smoothing) * F.one_hot(labels, classes).to(logits) + smoothing / classes
    return F.binary_cross_entropy_with_logits(logits + log_odds, targets, reduction="none").sum(dim=1)
