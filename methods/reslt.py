"""ResLT: residual branches for the medium and the tail classes (Cui et al., TPAMI 2022)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.method import Batch, MakeBackbone, Method
from bench.registry import register


@register("reslt")
class ResLT(Method):
    """The sum of three batch norm branches, for all, for medium and tail, and for tail classes.

    The branches share a linear classifier. Classes are grouped by the rank of their counts; the authors' code
    groups by class number, which is the same on CIFAR-LT.

    Args:
        own_loss: weight of the branches' own losses relative to the sum's; CIFAR-100 at factor 100, 50 and
            10: 0.995, 0.99, 0.72; CIFAR-10: 0.998, 0.998, 0.96.
        medium_from: where medium classes begin, as a share of the classes from the most frequent; CIFAR-100
            0.35, CIFAR-10 0.2, ImageNet-LT 0.175.
        tail_from: where tail classes begin; CIFAR-100 0.7, CIFAR-10 0.4, ImageNet-LT 0.78.
    """

    members: Tensor
    scores = "balanced"
    experts = 3

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        own_loss: float = 0.995,
        medium_from: float = 0.35,
        tail_from: float = 0.7,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.backbone = make_backbone()
        features = self.backbone.num_features
        self.norms = nn.ModuleList(nn.BatchNorm2d(features) for _ in range(3))
        self.head = nn.Linear(features, self.num_classes)
        self.own_loss = own_loss
        self.register_buffer("members", rank_groups(self.class_counts, (0.0, medium_from, tail_from)))

    def branches(self, images: Tensor) -> Tensor:
        """Return the logits of the three branches, (3, B, C)."""
        shared = self.backbone.feature_map(images)
        return torch.stack([self.head(self.backbone.pool(norm(shared))) for norm in self.norms])

    def loss(self, batch: Batch) -> Tensor:
        return reslt_loss(self.branches(batch.images), batch.labels, self.members, self.own_loss)

    def forward(self, images: Tensor) -> Tensor:
        return self.branches(images).sum(dim=0)


def rank_groups(class_counts: Tensor, starts: tuple[float, ...]) -> Tensor:
    """Return which classes are in each group, (G, C) float: those whose rank is at least start * C."""
    ranks = class_counts.argsort(descending=True, stable=True).argsort()
    return torch.stack([(ranks >= round(start * len(ranks))).float() for start in starts])


def reslt_loss(logits: Tensor, labels: Tensor, members: Tensor, own_loss: float) -> Tensor:
    """Return b L_own + (1 - b) CE(sum_k z_k) of branches (K, B, C) and their classes (K, C).

    L_own is the mean cross-entropy over all pairs of a branch and an image of its classes.
    quirk: it uses log(p + 1e-7), so it is at most 16.
    """
    own = -(logits.softmax(dim=2) + 1e-7).log()
    own = own.gather(2, labels.expand(len(logits), -1)[:, :, None]).squeeze(2)
    member = members[:, labels]
    fused = F.cross_entropy(logits.sum(dim=0), labels)
    return own_loss * (member * own).sum() / member.sum() + (1 - own_loss) * fused
