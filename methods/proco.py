"""ProCo: probabilistic contrastive learning (Du et al., TPAMI 2024)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Batch, Clock, MakeBackbone, View
from bench.registry import register
from methods.logit_adjustment import LogitAdjustment
from methods.parts.contrast import count_of_class
from methods.parts.projector import Projector


@register("proco", golden=True)
class ProCo(LogitAdjustment):
    """Contrast with infinitely many samples of each class, drawn from a von Mises-Fisher distribution.

    Each class's distribution is fitted to the mean of its projections in the previous and the current epoch.
    The defaults are the authors' for CIFAR; for ImageNet-LT and iNaturalist `temperature` is 0.07, `hidden`
    2048 and `dim` 1024.

    Args:
        contrast_weight: of the contrastive term beside the logit-adjusted cross-entropy.
        temperature: of the similarities.
        hidden: width inside the projector.
        dim: of the projections, at least 16.
    """

    views = (View("main"), View("simclr"), View("simclr"))

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        contrast_weight: float = 1.0,
        temperature: float = 0.1,
        hidden: int = 512,
        dim: int = 128,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        if dim < 16:
            raise BenchError(f"proco: dim: {dim}: its Bessel functions are exact from 16 on")
        self.contrast_weight, self.temperature = contrast_weight, temperature
        self.projector = Projector(self.backbone.num_features, hidden, dim)
        self.used = ClassMeans(self.num_classes, dim)
        self.next = ClassMeans(self.num_classes, dim)

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        self.used.load_state_dict(self.next.state_dict())
        self.next.restart()

    def loss(self, batch: Batch) -> Tensor:
        features = self.backbone(torch.cat(batch.views))
        _, *contrasted = self.projector(features).chunk(len(batch.views))
        loss = self.loss_of_features(features[: len(batch.labels)], batch.labels)
        for view in contrasted:
            self.used.fold(view, batch.labels)
            self.next.fold(view, batch.labels)
            logits = proco_logits(view, self.used.means, self.temperature)
            loss = loss + self.contrast_weight / len(contrasted) * self.criterion(logits, batch.labels)
        return loss


class ClassMeans(nn.Module):
    """The running mean (C, D) of projections; a class without any has a random one of length 0.9.

    quirk: that length and direction are those of the authors' code.
    """

    unseen: Tensor
    means: Tensor
    counts: Tensor

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("unseen", 0.9 * F.normalize(torch.randn(classes, dim), dim=1))
        self.register_buffer("means", self.unseen.clone())
        self.register_buffer("counts", torch.zeros(classes))

    def restart(self) -> None:
        """Reset all means."""
        self.means.copy_(self.unseen)
        self.counts.zero_()

    @torch.no_grad()
    def fold(self, projections: Tensor, labels: Tensor) -> None:
        """Fold unit projections (B, D) of labels (B,) into the means."""
        new = count_of_class(labels, len(self.counts))
        total = self.counts + new
        sums = torch.zeros_like(self.means).index_add(0, labels, projections.to(self.means))
        share = (1 / total.clamp(min=1))[:, None]
        moved = self.means * self.counts[:, None] * share + sums * share
        self.means.copy_(torch.where(new[:, None] > 0, moved, self.means))
        self.counts.copy_(total)


def proco_logits(projections: Tensor, means: Tensor, temperature: float) -> Tensor:
    """Return the log of E[exp(z x / t)] over x of each class's distribution, (B, C).

    For a von Mises-Fisher distribution with direction m and concentration k it is g(|k m + z / t|) - g(k); k
    is estimated from the mean's length R as D R / (1 - R^2), at most 1e5. It is computed in double precision,
    as g grows with k and only the difference matters.

    Args:
        projections: (B, D), unit norm; only they have a gradient.
        means: (C, D), of length at most 1.
    """
    z, means = projections.double() / temperature, means.double()
    dim = means.shape[1]
    length = means.norm(dim=1)
    kappa = (dim * length / (1 - length**2).clamp(min=1e-12)).clamp(max=1e5)
    squared = kappa**2 + 2 * z @ (kappa[:, None] * F.normalize(means, dim=1)).T + (z**2).sum(dim=1)[:, None]
    tilted = squared.clamp(min=1e-12).sqrt()
    return (log_bessel(dim / 2 - 1, tilted) - log_bessel(dim / 2 - 1, kappa)).to(projections)


def log_bessel(order: float, x: Tensor) -> Tensor:
    """Return log I_order(x) - order log x, finite for x >= 0, by the expansion for large orders.

    Abramowitz & Stegun 9.7.7 up to the fifth term. The absolute error is below 1e-6 for orders from 7 (16
    dimensions) and 1e-8 for orders from 15, where the authors' recurrence has an error of 1e-3 at x = 100.
    """
    root = (1 + (x / order) ** 2).sqrt()
    p = 1 / root
    series = torch.ones_like(x)
    for k, coefficients in enumerate(_DEBYE, start=1):
        terms = sum(c * p ** (k + 2 * i) for i, c in enumerate(coefficients))
        series = series + terms / order**k
    constant = order * math.log(order) + math.log(2 * math.pi * order) / 2
    return order * (root - (1 + root).log()) - root.log() / 2 + series.log() - constant


#: u_1 to u_5 as coefficients of p^k, p^(k+2), ...
_DEBYE = tuple(
    tuple(n / d for n in row)
    for d, row in (
        (24, (3, -5)),
        (1152, (81, -462, 385)),
        (414720, (30375, -369603, 765765, -425425)),
        (39813120, (4465125, -94121676, 349922430, -446185740, 185910725)),
        (
            6688604160,
            (1519035525, -49286948607, 284499769554, -614135872350, 566098157625, -188699385875),
        ),
    )
)
