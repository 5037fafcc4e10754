"""DisAlign: distribution alignment of a trained classifier's logits (Zhang et al., CVPR 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import MakeBackbone, Method
from bench.registry import register
from methods.parts.frozen import BatchNorm, FrozenBackbone, load_linear
from methods.parts.heads import linear_head
from methods.parts.weights import power_weights, weighted_cross_entropy


class AlignedHead(nn.Module):
    """A linear classifier whose logits are scaled and shifted by class and image.

    With a confidence s in 0..1 of each image, z'_c = (1 + s a_c) z_c + s b_c. As in the authors' layer, a
    starts at 1, b at 0, and the confidence's weights at 0.1 (the paper writes 1 + a as alpha).
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = linear_head(features, classes)
        self.confidence = nn.Linear(features, 1)
        nn.init.constant_(self.confidence.weight, 0.1)
        self.scales = nn.Parameter(torch.ones(classes))
        self.shifts = nn.Parameter(torch.zeros(classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return aligned logits (B, C) of features (B, D)."""
        confidence = self.confidence(features).sigmoid()
        return (1 + confidence * self.scales) * self.linear(features) + confidence * self.shifts


@register("disalign", golden=True)
class DisAlign(FrozenBackbone):
    """Scales, shifts and a confidence on a trained, frozen classifier, from plain batches.

    Args:
        rho: of the class weights, which are proportional to 1 / n_c^rho: 0 for equal weights; 1.2 is the
            authors' on ImageNet-LT.
        batch_norm: of the frozen backbone, see "crt".
    """

    head: AlignedHead
    weights: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        rho: float = 1.2,
        batch_norm: BatchNorm = "train",
    ) -> None:
        super().__init__(make_backbone, class_counts, batch_norm=batch_norm)
        self.register_buffer("weights", power_weights(self.class_counts, rho))

    def make_head(self, features: int, classes: int) -> nn.Module:
        return AlignedHead(features, classes)

    def start_from(self, parent: Method) -> None:
        super().start_from(parent)
        load_linear(self.head.linear, parent)
        self.head.linear.requires_grad_(False)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return weighted_cross_entropy(outputs, labels, self.weights)
