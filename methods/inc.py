"""INC: neural collapse as a regulariser of features under a linear classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import Batch, Clock, MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.contrast import count_of_class


@register("inc", golden=True)
class INC(CrossEntropy):
    """Cross-entropy, with terms that pull features to learnt class means and push these means apart.

    The defaults are those of the authors' code for ImageNet-LT; it has none for CIFAR. The means are learnt
    separately, by plain gradient descent at a constant rate.

    Args:
        within: weight of the features' distances to their class means; for the means the weight is 1.
        between: weight of the angles between the means.
        mean_rate: learning rate of the means.
    """

    takes_label_smoothing = CrossEntropy.takes_label_smoothing
    means: Tensor
    pull: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        within: float = 0.01,
        between: float = 0.1,
        mean_rate: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.within, self.between, self.mean_rate = within, between, mean_rate
        self.register_buffer("means", torch.randn(self.num_classes, self.backbone.num_features))
        self.register_buffer("pull", torch.zeros_like(self.means))

    def mean_over_images(self) -> bool:
        return False

    def loss_of_features(self, features: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            rows, means = features.float(), self.means.detach().clone().requires_grad_()
            with torch.enable_grad():
                own = within_classes(rows.detach(), means, labels) + self.between / self.within * apart(means)
                (pull,) = torch.autograd.grad(own, means)
            self.pull.copy_(pull)
            near = within_classes(rows, self.means.clone(), labels)
        between = self.between * apart(means.detach())  # only for its value, as the means have their own step
        return super().loss_of_features(features, labels) + self.within * near + between

    def after_step(self, clock: Clock, batch: Batch) -> None:
        super().after_step(clock, batch)
        self.means.sub_(self.mean_rate * self.pull)


def within_classes(features: Tensor, means: Tensor, labels: Tensor) -> Tensor:
    """Return (1/C) sum_c (1/count_c) sum_{i in c} ||f_i - mean_c||^2 over the batch (NC1).

    quirk: a class that is not in the batch counts as 1e-12.
    """
    squares = (features - means[labels]).square().sum(dim=1)
    counts = count_of_class(labels, len(means)).to(features)
    sums = torch.zeros_like(counts).index_add(0, labels, squares)
    return (sums / (counts + 1e-10)).clamp(1e-12, 1e12).mean()


def apart(means: Tensor) -> Tensor:
    """Return minus the mean angle of each centred class mean (C, D) to the nearest other one (NC2)."""
    directions = F.normalize(means - means.mean(dim=0), dim=1)
    cosines = directions @ directions.T
    itself = torch.eye(len(means), dtype=torch.bool, device=means.device)
    nearest = cosines.masked_fill(itself, -torch.inf).amax(dim=1)
    return -nearest.clamp(-0.99999, 0.99999).acos().mean()
