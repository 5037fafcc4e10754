"""Experts: branches of one backbone on a shared trunk, each with its own head (RIDE, section 3.2).

The first dimension of all tensors of K experts is the expert.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import MakeBackbone
from methods.parts.classifier import Classifier


class ExpertBackbone(Backbone):
    """A backbone of K experts: features are (K, B, D), maps (K, B, D, h, w)."""

    rows_dim = 1

    def pool(self, feature_map: Tensor) -> Tensor:
        """Pool the experts' last feature maps to (K, B, D)."""
        return super().pool(feature_map.flatten(0, 1)).unflatten(0, feature_map.shape[:2])


class Experts(ExpertBackbone):
    """A backbone whose last two stages exist once per expert; the stages before them are shared.

    As in RIDE, it is split after layer1 of a CIFAR ResNet and after layer2 of an ImageNet one. `width` scales
    the channels of the experts' stages.
    """

    def __init__(self, make_backbone: MakeBackbone, experts: int, width: float) -> None:
        whole = make_backbone()
        if len(whole.stage_names) < 3:
            raise BenchError("experts need a backbone of several stages; choose a ResNet")
        trunk, _ = whole.split(after=whole.stage_names[-3])
        branches = [make_backbone(after=trunk.stage_names[-1], narrow=width) for _ in range(experts)]
        stages: dict[str, nn.Module] = dict(trunk.stages.items())
        stages["experts"] = _Branches(nn.Sequential(*branch.stages.values()) for branch in branches)
        super().__init__(stages, branches[0]._pool, branches[0].num_features)
        self.experts = experts


class _Branches(nn.Module):
    """Every expert's stages, each on the trunk's feature map."""

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(branches)

    def forward(self, shared: Tensor) -> Tensor:
        return torch.stack([branch(shared) for branch in self.each])


class PerExpert(nn.Module):
    """One module per expert, each for its own slice of (K, ...): heads or projectors."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(modules)

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([module(own) for module, own in zip(self.each, features, strict=True)])


class ExpertEnsemble(Classifier):
    """Turn a classifier into an ensemble of experts, each with its own head; logits are averaged.

    Put it before the classifier: `class Ensemble(ExpertEnsemble, LDAM)`. The loss is the mean of the experts'
    losses unless `criterion`, whose outputs are (K, B, C), is overridden.

    Args:
        experts: how many.
        width: of the experts' stages, as a share of the backbone's channels; RIDE and SADE 3/4.
    """

    backbone: Experts

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        experts: int = 3,
        width: float = 0.75,
        **common: Any,
    ) -> None:
        for name in ("auxiliary", "embedding"):
            if common.get(name):
                raise BenchError(f"{name}: takes one feature per image; leave it out of experts")
        super().__init__(partial(Experts, make_backbone, experts, width), class_counts, **common)
        self.experts = experts

    def make_head(self, features: int, classes: int) -> nn.Module:
        make = super().make_head
        return PerExpert(make(features, classes) for _ in range(self.backbone.experts))

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        own = super().criterion
        return torch.stack([own(expert, labels) for expert in outputs]).mean()

    def member_logits(self, images: Tensor) -> Tensor:
        return super().forward(images).transpose(0, 1)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).mean(dim=0)
