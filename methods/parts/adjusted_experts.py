"""Experts with cosine heads that differ in how their logits are adjusted for the class prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import MakeBackbone
from bench.metrics.adapt import expert_weights
from bench.randomness import generator
from methods.parts.experts import ExpertEnsemble, PerExpert
from methods.parts.heads import CosineHead
from methods.parts.weights import weighted_cross_entropy


class AdjustedExperts(ExpertEnsemble):
    """An ensemble whose experts each add their own row of `adjustments` to their logits in training.

    Args:
        scale: of the experts' cosines, in training as in test.
    """

    #: What each expert adds, (K, C); a subclass registers it.
    adjustments: Tensor
    scores = "balanced"

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, scale: float = 30.0, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.scale = scale

    def make_head(self, features: int, classes: int) -> nn.Module:
        return PerExpert(CosineHead(features, classes) for _ in range(self.backbone.experts))

    def training_outputs(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.scale * super().training_outputs(features, labels)

    def member_logits(self, images: Tensor) -> Tensor:
        return self.scale * super().member_logits(images)

    def adapt(self, logits: Tensor, weights: Tensor, views: Tensor | None = None) -> Tensor:
        """Weigh the experts as SADE does, see `bench.metrics.adapt`; images are drawn by their weights."""
        assert views is not None
        rng, share = generator("adapt"), (weights / weights.max()).cpu().numpy()
        drawn = np.flatnonzero(rng.random(len(share)) < share)
        found = expert_weights(views[:, drawn].cpu().numpy(), order=rng.permutation(len(drawn)))
        return torch.einsum("k,nkc->nc", torch.from_numpy(found).to(logits), logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * super().forward(images)


def adjusted_losses(logits: Tensor, labels: Tensor, adjustments: Tensor, class_weights: Tensor) -> Tensor:
    """Return CE(z_k + a_k), (K,), of the experts' logits (K, B, C) and their adjustments (K, C)."""
    experts = zip(logits, adjustments, strict=True)
    return torch.stack([weighted_cross_entropy(z + a, labels, class_weights) for z, a in experts])
