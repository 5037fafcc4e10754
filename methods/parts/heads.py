"""Classifier heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear_head(features: int, classes: int) -> nn.Linear:
    """Return a linear classifier with Kaiming-normal weights (as LDAM-DRW's CIFAR ResNets)."""
    head = nn.Linear(features, classes)
    nn.init.kaiming_normal_(head.weight)
    return head


class CosineHead(nn.Module):
    """`scale` times the cosines of features to one vector per class; no bias.

    LDAM's normed classifier applies the scale (30) in the loss, so it is 1 by default. `weight` is (C, D),
    uniform in [-1, 1] and then normalised to unit length, as in LDAM-DRW, or shortened to `longest` (BCCL:
    5). The direction of a longer vector changes more slowly.
    """

    def __init__(self, features: int, classes: int, scale: float = 1.0, longest: float | None = None) -> None:
        super().__init__()
        self.scale = scale
        weight = torch.empty(classes, features).uniform_(-1, 1)
        start = F.normalize(weight) if longest is None else weight.renorm(2, 0, longest)
        self.weight = nn.Parameter(start)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C) of features (B, D)."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))
