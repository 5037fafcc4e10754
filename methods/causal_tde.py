"""Causal TDE: the total direct effect, without the optimiser's momentum (Tang et al., NeurIPS 2020)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.branches import TwoBranches


@register("causal_tde", golden=True)
class CausalTDE(CrossEntropy):
    """Cross-entropy with a normalised multi-head classifier; at test the mean feature's effect is subtracted.

    Args:
        effect: strength of the subtraction at test, 0 for none: 1.5 on CIFAR-100, 1 on CIFAR-10, 3 on
            ImageNet-LT.
        heads: number of parts of the feature that are normalised separately.
        temperature: of the cosines, divided by the heads.
        two_branches: double the last residual block as in BBN and concatenate the branches' features: the
            128-dimensional ResNet-32 of the CIFAR results. False for ImageNet-LT.
        mean_momentum: of the mean feature. The authors' ImageNet-LT runs raise it towards 1 as the learning
            rate falls; here it is constant.
    """

    head: nn.Linear
    mean_feature: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        effect: float = 1.5,
        heads: int = 2,
        temperature: float = 16.0,
        two_branches: bool = True,
        mean_momentum: float = 0.9,
        **common: Any,
    ) -> None:
        backbone = partial(TwoBranches, make_backbone) if two_branches else make_backbone
        super().__init__(backbone, class_counts, **common)
        features = self.backbone.num_features
        if features % heads:
            raise BenchError(f"causal_tde: {features} features do not divide into heads: {heads}")
        self.effect, self.heads, self.temperature = effect, heads, temperature
        self.mean_momentum = mean_momentum
        self.scores = "balanced" if effect else "train_prior"
        self.register_buffer("mean_feature", torch.zeros(features))

    def make_head(self, features: int, classes: int) -> nn.Module:
        return nn.Linear(features, classes, bias=False)

    def training_outputs(self, features: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():  # a running sum, as only its direction is used
            self.mean_feature.mul_(self.mean_momentum).add_(features.mean(dim=0))
        return causal_logits(features, self.head.weight, self.heads, self.temperature)

    def forward(self, images: Tensor) -> Tensor:
        features, weight = self.backbone(images), self.head.weight
        return tde_logits(features, weight, self.mean_feature, self.heads, self.temperature, self.effect)


def causal_logits(features: Tensor, weight: Tensor, heads: int, temperature: float) -> Tensor:
    """Return temperature / K sum_k x_k / ||x_k|| . w_k / (||w_k|| + 1/32) over the K heads."""
    return _scores(_directions(features, heads), weight, temperature)


def tde_logits(
    features: Tensor, weight: Tensor, mean_feature: Tensor, heads: int, temperature: float, effect: float
) -> Tensor:
    """Return the logits of x - effect cos(x, c) c per head, x and c being directions."""
    x, c = _directions(features, heads), _directions(mean_feature[None], heads)
    along = (x * c).sum(dim=2, keepdim=True) * c
    return _scores(x - effect * along, weight, temperature)


def _directions(features: Tensor, heads: int) -> Tensor:
    return F.normalize(features.float().unflatten(1, (heads, -1)), dim=2)


def _scores(directions: Tensor, weight: Tensor, temperature: float) -> Tensor:
    heads = directions.shape[1]
    rows = weight.unflatten(1, (heads, -1))
    rows = rows / (rows.norm(dim=2, keepdim=True) + 1 / 32)
    return temperature / heads * F.linear(directions.flatten(1), rows.flatten(1))
