"""LWS: learnable weight scaling of a trained classifier (Kang et al., ICLR 2020, section 4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import MakeBackbone, Method
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.frozen import BatchNorm, FrozenBackbone, load_linear
from methods.parts.heads import linear_head


class ScaledHead(nn.Module):
    """A linear classifier whose logits, biases included, have a scale for each class, which starts at 1."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = linear_head(features, classes)
        self.scales = nn.Parameter(torch.ones(classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return s_c (w_c f + b_c), (B, C), of features (B, D)."""
        return self.scales * self.linear(features)


@register("lws")
class LWS(FrozenBackbone, CrossEntropy):
    """One scale per class on a trained, frozen classifier, learnt from class-balanced batches.

    Args:
        batch_norm: of the frozen backbone, see "crt".
    """

    head: ScaledHead

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, batch_norm: BatchNorm = "train"
    ) -> None:
        super().__init__(make_backbone, class_counts, batch_norm=batch_norm)

    def make_head(self, features: int, classes: int) -> nn.Module:
        return ScaledHead(features, classes)

    def start_from(self, parent: Method) -> None:
        super().start_from(parent)
        load_linear(self.head.linear, parent)
        self.head.linear.requires_grad_(False)

    def sampler(self, epoch: int, epochs: int) -> str:
        return "class_balanced"
