"""A fixed simplex (ETF) instead of a learnt classifier: dot regression, and DisA's optimal transport to it.

Yang et al., NeurIPS 2022 (ETF + DR); Gao et al., ICML 2024 (DisA).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.contrast import count_of_class, unit
from methods.parts.mixing import Mixup


class ETFHead(nn.Module):
    """Products of features, after batch norm and at unit length, with fixed vertices (D, C).

    A simplex of C vertices needs D >= C. With fewer features the first D coordinates of a larger one are
    used, whose angles are not all equal; the authors widen the network instead.
    """

    vertices: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.register_buffer("vertices", simplex(max(features, classes), classes)[:features])

    def directions(self, features: Tensor) -> Tensor:
        """Return features (B, D) after batch norm, at unit length."""
        return unit(self.norm(features))

    def forward(self, features: Tensor) -> Tensor:
        return self.directions(features) @ self.vertices


@register("etf_dr", golden=True)
class ETF(Mixup):
    """Features regressed onto the vertices of a fixed simplex, with mixup; no classifier is learnt.

    The authors' networks have at least as many features as classes: on CIFAR-100 a ResNet-32 of twice the
    width (128), on ImageNet-LT 4,096.

    Args:
        batch_lengths: make vertices longer for classes that are rarer in the batch, as in the authors' code
            (quirk: in the paper this is an option, and the method has fixed lengths).
    """

    head: ETFHead
    scores = "balanced"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        batch_lengths: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.batch_lengths = batch_lengths

    def make_head(self, features: int, classes: int) -> nn.Module:
        return ETFHead(features, classes)

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        features = self.backbone(mix.images)
        vertices = self.head.vertices
        if self.batch_lengths:
            vertices = vertices * lengths_in_batch(batch.labels, self.num_classes)
        regress = partial(dot_regression, self.head.directions(features), vertices)
        return mix.weigh(lambda labels: regress(labels) + self.auxiliary_loss(features, labels))


@register("disa", golden=True)
class DisA(Mixup, CrossEntropy):
    """Mixup cross-entropy, plus the cost of transporting the batch's features evenly to a simplex's vertices.

    The classifier is learnt here. quirk left out: the authors' optimiser has only the backbone's parameters,
    so their linear classifier and the norm before the simplex keep their initial values.

    Args:
        transport_weight: of the transport's cost.
        rounds: maximum of Sinkhorn's iteration, which stops on convergence; the authors' maximum is 200, and
            theirs took 2 on the stored cases.
    """

    takes_label_smoothing = CrossEntropy.takes_label_smoothing

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        transport_weight: float = 0.1,
        rounds: int = 10,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.transport_weight, self.rounds = transport_weight, rounds
        self.simplex = ETFHead(self.backbone.num_features, self.num_classes)

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        features = self.backbone(mix.images)
        costs = 1 - self.simplex(features)
        classified = mix.weigh(partial(self.loss_of_features, features))
        return classified + self.transport_weight * transport_cost(costs, self.rounds)


def simplex(features: int, classes: int) -> Tensor:
    """Return a simplex (D, C): unit columns whose cosines are all -1 / (C - 1), in a random orientation."""
    basis, _ = torch.linalg.qr(torch.rand(features, classes))
    centred = torch.eye(classes) - 1 / classes
    return math.sqrt(classes / max(classes - 1, 1)) * basis @ centred


def lengths_in_batch(labels: Tensor, classes: int) -> Tensor:
    """Return sqrt((B / U) / count_c) for the U classes among labels (B,), and 1 for the others, (C,)."""
    counts = count_of_class(labels, classes)
    mean = len(labels) / (counts > 0).sum()
    return torch.where(counts > 0, (mean / counts.clamp(min=1)).sqrt(), 1.0)


def dot_regression(features: Tensor, vertices: Tensor, labels: Tensor, length_weight: float = 0.0) -> Tensor:
    """Return 1/2 mean_i (h_i m_y - |m_y| |h_i|)^2 / |h_i| + w mean |h_i|: h (B, D), vertices m (D, C).

    |h_i| has a gradient only in the last term, which is for features that are not normalised (the authors'
    ImageNet-LT: w 0.01).
    """
    own = vertices.T[labels]
    sizes = features.norm(dim=1)
    fixed = sizes.detach()
    reached = (features * own).sum(dim=1)
    regression = ((reached - own.norm(dim=1) * fixed).square() / fixed.clamp(min=1e-12)).mean() / 2
    return regression + length_weight * sizes.mean() if length_weight else regression


def transport_cost(costs: Tensor, rounds: int, stop: float = 0.1) -> Tensor:
    """Return the cost of the entropic optimal transport between uniform measures, by `costs` (B, C).

    Sinkhorn's iteration on dual potentials at regularisation 1, differentiated through its rounds; it stops
    when the row potentials change by less than `stop` in sum.
    """
    images, classes = costs.shape
    mass_u, mass_v = math.log(1 / images + 1e-8), math.log(1 / classes + 1e-8)
    u, v = costs.new_zeros(images, 1), costs.new_zeros(1, classes)
    moving = torch.ones((), dtype=torch.bool, device=costs.device)
    for _ in range(rounds):
        next_u = mass_u - (u + v - costs).logsumexp(dim=1, keepdim=True) + u
        next_v = mass_v - (next_u + v - costs).logsumexp(dim=0, keepdim=True) + v
        moved = (next_u - u).abs().sum()
        u, v = torch.where(moving, next_u, u), torch.where(moving, next_v, v)
        moving = moving & (moved.detach() >= stop)
    return ((u + v - costs).exp() * costs).sum()
