"""NCM: the nearest class mean in a trained feature space (Kang et al., ICLR 2020, section 4)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import MakeBackbone, Method
from bench.registry import register
from methods.parts.frozen import load_backbone


@register("ncm", golden=True)
class NCM(Method):
    """Minus the squared distance to each class's mean feature; nothing is trained.

    Features are centred by the mean of the whole training set and normalised to unit length, their class
    means are not (the authors' "cl2n"). A class without a training image is farthest.
    """

    centre: Tensor
    means: Tensor
    present: Tensor
    needs_parent = True
    trains = False
    scores = "distances"

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray) -> None:
        super().__init__(make_backbone, class_counts)
        self.backbone = make_backbone()
        self.register_buffer("centre", torch.zeros(self.backbone.num_features))
        self.register_buffer("means", torch.zeros(self.num_classes, self.backbone.num_features))
        self.register_buffer("present", torch.zeros(self.num_classes, dtype=torch.bool))

    def start_from(self, parent: Method) -> None:
        load_backbone(self.backbone, parent)

    @torch.no_grad()
    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.eval()
        # on the host, where sums have a fixed order
        seen = [(self.backbone(images).float().cpu(), labels.cpu()) for images, labels in training_set]
        features, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
        centre, means = class_means(features, labels, self.num_classes)
        self.centre.copy_(centre)
        self.means.copy_(means)
        self.present.copy_(labels.bincount(minlength=self.num_classes) > 0)

    def forward(self, images: Tensor) -> Tensor:
        distances = minus_distances(self.backbone(images).float(), self.centre, self.means)
        return distances.masked_fill(~self.present, -4.0)  # the largest distance of unit vectors


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) of features (N, D), and class means (C, D) of their directions from it or 0."""
    centre = features.mean(dim=0)
    sums = features.new_zeros(classes, features.shape[1])
    sums.index_add_(0, labels, F.normalize(features - centre))
    return centre, sums / labels.bincount(minlength=classes).clamp(min=1)[:, None]


def minus_distances(features: Tensor, centre: Tensor, means: Tensor) -> Tensor:
    """Return -||u_i - m_c||^2, (B, C), of the unit directions u of features (B, D) from the centre."""
    directions = F.normalize(features - centre)
    return 2 * directions @ means.T - directions.square().sum(dim=1, keepdim=True) - means.square().sum(dim=1)
