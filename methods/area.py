"""AREA: class weights from the area that a class's features cover (Chen et al., ICCV 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.method import Clock, MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.contrast import count_of_class
from methods.parts.weights import weighted_cross_entropy


@register("area", golden=True)
class AREA(CrossEntropy):
    """Cross-entropy, weighted late in training by the inverse of the area that a class's features cover.

    Images whose features point the same way cover little. The areas are computed before each epoch from the
    training images, unaugmented and in a fixed order; the authors augment and shuffle them. quirk: the
    features of two images alone in a group are on opposite sides of their class mean, so the area is
    unbounded and the weight 0.

    Args:
        weight_from: share of the epochs after which the weights apply.
        group: number of images for one estimate of the area, the authors' batch.
    """

    area_weights: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        weight_from: float = 0.8,
        group: int = 64,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.weight_from, self.group = weight_from, group
        self.register_buffer("area_weights", torch.ones(self.num_classes))

    def mean_over_images(self) -> bool:
        return False

    def wants_training_set(self, clock: Clock) -> bool:
        return clock.epoch >= round(self.weight_from * clock.epochs)

    def read_training_set(self, clock: Clock, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        read = [(self.backbone(images).float(), labels) for images, labels in training_set]
        features, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        order = spread_order(len(labels)).to(labels.device)
        self.area_weights.copy_(area_weights(features[order], labels[order], self.num_classes, self.group))

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return weighted_cross_entropy(outputs, labels, self.area_weights)


def spread_order(count: int) -> Tensor:
    """Return a fixed order (count,) whose neighbours are far apart, in steps near the golden section."""
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) > 1:
        step += 1
    return torch.arange(count) * step % max(count, 1)


def area_weights(features: Tensor, labels: Tensor, classes: int, group: int) -> Tensor:
    """Return weights (C,) proportional to 1 / area, scaled to sum to C.

    A class's area is the sum over groups of `group` images in their order: b^2 / ||sum_i unit(f_i -
    mean)||^2 for its b images there, and 1 for a single one. An absent class has area 1.
    """
    counts = count_of_class(labels, classes)
    sums = torch.zeros(classes, features.shape[1], device=features.device).index_add(0, labels, features)
    apart = features - (sums / counts.clamp(min=1)[:, None])[labels]
    lengths = apart.norm(dim=1, keepdim=True)
    units = apart / torch.where(lengths > 0, lengths, 1.0)
    areas = torch.zeros(classes, device=features.device)
    for own, some in zip(units.split(group), labels.split(group), strict=True):
        count = count_of_class(some, classes)
        total = torch.zeros_like(sums).index_add(0, some, own).square().sum(dim=1)
        covered = count.square() / total.clamp(min=1e-12)
        areas += torch.where(count > 1, covered, count)
    inverse = 1 / torch.where(counts > 0, areas, 1.0)
    return inverse / inverse.sum() * classes
