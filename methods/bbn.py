"""BBN: a bilateral-branch network with cumulative learning (Zhou et al., CVPR 2020)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.method import Batch, Clock, MakeBackbone, Method
from bench.registry import register
from methods.parts.branches import TwoBranches


@register("bbn", golden=True)
class BBN(Method):
    """One branch on ordinary batches, one on batches of the reversed tail; the weight shifts to the second.

    At test both branches see the image, with equal weights.
    """

    alpha: Tensor
    extra_sampler = "reverse"
    scores = "balanced"

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray) -> None:
        super().__init__(make_backbone, class_counts)
        self.backbone = TwoBranches(make_backbone)
        self.head = nn.Linear(self.backbone.num_features, self.num_classes)
        self.register_buffer("alpha", torch.tensor(1.0))

    def mean_over_images(self) -> bool:
        return True

    def before_epoch(self, clock: Clock) -> None:
        self.alpha.fill_(bbn_alpha(clock.epoch, clock.epochs))

    def loss(self, batch: Batch) -> Tensor:
        assert batch.extra is not None
        conventional = self.backbone.branch(0, batch.images)
        rebalancing = self.backbone.branch(1, batch.extra.images)
        logits = self.head(bbn_features(conventional, rebalancing, self.alpha))
        return bbn_loss(logits, batch.labels, batch.extra.labels, self.alpha)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def bbn_alpha(epoch: int, epochs: int) -> float:
    """Return 1 - (e / E)^2 of an epoch from 0.

    quirk: the authors' code has E = 100 for 90 epochs and 200 for 180, so alpha ends above 0 there.
    """
    return 1 - (epoch / {90: 100, 180: 200}.get(epochs, epochs)) ** 2


def bbn_features(conventional: Tensor, rebalancing: Tensor, alpha: Tensor) -> Tensor:
    """Return 2 [a f_c; (1 - a) f_r], (B, 2D); at test a = 1/2.

    quirk: the factor 2 is only in the authors' code.
    """
    return 2 * torch.cat([alpha * conventional, (1 - alpha) * rebalancing], dim=1)


def bbn_loss(logits: Tensor, labels: Tensor, reversed_labels: Tensor, alpha: Tensor) -> Tensor:
    """Return a CE(z, y_c) + (1 - a) CE(z, y_r) of joint logits (B, C)."""
    return alpha * F.cross_entropy(logits, labels) + (1 - alpha) * F.cross_entropy(logits, reversed_labels)
