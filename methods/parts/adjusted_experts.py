"""Experts with cosine heads whose logits are adjusted differently for the class prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import MakeBackbone, Unlabelled
from methods.parts.expert_weights import expert_weights
from methods.parts.experts import ExpertEnsemble, PerExpert
from methods.parts.heads import CosineHead
from methods.parts.weights import weighted_cross_entropy


class AdjustedExperts(ExpertEnsemble):
    """An ensemble whose experts each add a row of `adjustments` to their logits in training.

    Args:
        scale: of the experts' cosines, in training as in test.
    """

    #: The experts' adjustments, (K, C); a subclass registers them.
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

    def adapt(self, test: Unlabelled) -> Tensor:
        """Weight the experts as in SADE, by two views of the sample."""
        assert test.views is not None, "test_views asks for them"
        sample = test.views[:, test.sample.to(test.views.device)]
        weights = torch.from_numpy(expert_weights(sample.cpu().numpy())).to(test.logits)
        return torch.einsum("k,nkc->nc", weights, test.logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * super().forward(images)


def adjusted_losses(logits: Tensor, labels: Tensor, adjustments: Tensor, class_weights: Tensor) -> Tensor:
    """Return CE(z_k + a_k), (K,), of the experts' logits (K, B, C) and their adjustments (K, C)."""
    experts = zip(logits, adjustments, strict=True)
    return torch.stack([weighted_cross_entropy(z + a, labels, class_weights) for z, a in experts])
