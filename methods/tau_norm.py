"""tau-normalisation of a trained classifier (Kang et al., ICLR 2020, section 4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import MakeBackbone, Method
from bench.registry import register
from methods.parts.frozen import load_backbone, load_linear


@register("tau_norm")
class TauNorm(Method):
    """The parent's linear classifier with normalised weights; nothing is trained.

    quirk: the bias is dropped, as in the authors' code, even at tau 0.

    Args:
        tau: 0 keeps the weights, 1 gives all length 1. The authors choose it among 0, 0.1, ... 2 on held-out
            images; without such images, list a few values in a recipe.
    """

    needs_parent = True
    trains = False
    scores = "balanced"

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, tau: float = 1.0) -> None:
        super().__init__(make_backbone, class_counts)
        self.tau = tau
        self.backbone = make_backbone()
        self.head = nn.Linear(self.backbone.num_features, self.num_classes, bias=False)

    def start_from(self, parent: Method) -> None:
        load_backbone(self.backbone, parent)
        trained = nn.Linear(self.backbone.num_features, self.num_classes)
        load_linear(trained, parent)
        self.head.weight.data.copy_(tau_normalised(trained.weight, self.tau))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


@torch.no_grad()
def tau_normalised(weight: Tensor, tau: float) -> Tensor:
    """Return w_c / ||w_c||^tau of classifier rows (C, D)."""
    return weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau
