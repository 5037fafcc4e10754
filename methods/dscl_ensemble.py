"""DSCL + PBSD with RIDE's experts: the paper's ensemble, whose code is not published."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from bench.method import MakeBackbone
from bench.registry import register
from methods.dscl import DSCL, DSCLLinear
from methods.parts.experts import ExpertEnsemble, Experts, PerExpert
from methods.parts.queue import KeyQueue


@register("dscl_pbsd_ensemble", version=2, reconstruction=True)
class DSCLEnsemble(DSCL):
    """DSCL + PBSD on experts, each with its own projector and keys; losses are averaged.

    Args:
        experts: how many.
        width: of the experts' stages, as a share of the backbone's channels.
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
        super().__init__(partial(Experts, make_backbone, experts, width), class_counts, **common)
        self.experts = experts

    def make_projector(self, features: int, dim: int) -> nn.Module:
        make = super().make_projector
        return PerExpert(make(features, dim) for _ in range(self.backbone.experts))

    def make_queue(self, size: int, dim: int) -> KeyQueue:
        return KeyQueue(size, dim, self.num_classes, lead=(self.backbone.experts,))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).mean(dim=0)


@register("dscl_ensemble_linear", version=2, reconstruction=True)
class DSCLEnsembleLinear(ExpertEnsemble, DSCLLinear):
    """The second stage of the ensemble: a linear classifier per frozen expert, logits averaged."""

    usual_parent = "dscl_pbsd_ensemble"
