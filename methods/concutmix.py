"""ConCutMix: contrastive CutMix, with labels corrected by the projections (Pan et al., TIP 2024)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.method import Batch, Clock, MakeBackbone
from bench.registry import register
from methods.bcl import BCL
from methods.parts.mixing import paste_extra, pasting_draws, soft_cross_entropy


@register("concutmix", golden=True, classifier="linear")
class ConCutMix(BCL):
    """BCL with boxes of class-balanced images pasted into the classified view, later with corrected labels.

    The label of a mixed image is moved towards the classes whose centres are nearest to its projection.
    quirk: with the authors' constants, which are the defaults for any number of classes, it moves by at most
    0.12 %.

    Their first view on CIFAR has AutoAugment and no Cutout ("autoaugment"). Their (tau, nearest) are (0.85,
    0.3) on CIFAR-10 and (0.99, 0.03) on ImageNet-LT, there with a cosine classifier.

    Args:
        tau: of the log prior in the classifier's loss.
        alpha: of the Beta distribution of the remaining share of the image.
        probability: of pasting into a batch.
        correct_from: share of the epochs after which labels are corrected.
        correction: strength of the correction, divided by the number of classes.
        nearest: share of the classes towards which a label may move.
    """

    extra_sampler = "class_balanced"
    correcting: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        tau: float = 0.9,
        alpha: float = 1.0,
        probability: float = 0.5,
        correct_from: float = 0.5,
        correction: float = 0.2 / 255,
        nearest: float = 0.3,
        **more: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **more)
        self.tau, self.alpha, self.probability, self.correct_from = tau, alpha, probability, correct_from
        self.strength = correction * self.num_classes
        self.nearest = max(1, round(nearest * self.num_classes))
        self.register_buffer("correcting", torch.zeros(()))

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return super().draws(rng, size) | pasting_draws(rng, size, self.alpha)

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        late = clock.epoch > math.floor(self.correct_from * clock.epochs)
        self.correcting.fill_(self.strength if late else 0.0)

    def loss(self, batch: Batch) -> Tensor:
        mix = paste_extra(batch, self.probability)
        features = self.backbone(torch.cat([mix.images, *batch.views[1:]]))
        images, targets = len(batch.labels), mix.targets(self.num_classes)
        with torch.no_grad():
            seen = self.projector.layers(features[:images]).float()
            known = self.prototype_projector.layers(self.head.weight).float()
            nearby = nearest_classes(seen, known, self.nearest)
            targets = corrected_labels(targets, nearby, self.class_counts, self.correcting)
        ce = soft_cross_entropy(self.head(features[:images]) + self.tau * self.log_prior, targets)
        repeated = batch.labels.repeat(len(batch.views) - 1)
        projections = self.projector(features[images:])
        return self.ce_weight * ce + self.contrast(projections, features[images:], repeated)


def nearest_classes(projections: Tensor, centres: Tensor, count: int) -> Tensor:
    """Return shares (B, C) of the `count` classes with the nearest centres (C, D), by inverse distance."""
    inverse = 1 / torch.cdist(projections, centres).clamp(min=1e-12)
    highest = inverse.topk(count, dim=1)
    kept = torch.zeros_like(inverse).scatter(1, highest.indices, highest.values)
    return kept / kept.sum(dim=1, keepdim=True)


def corrected_labels(
    labels: Tensor, nearby: Tensor, class_counts: Tensor, strength: Tensor | float
) -> Tensor:
    """Return (1 - w) t + w a of labels t, nearby classes a: w = s log(sum_c n_c t_c) / sum_c log n_c."""
    counts = class_counts.clamp(min=1).to(labels)
    weight = strength * (labels @ counts).log() / counts.log().sum().clamp(min=1e-12)
    return labels + weight[:, None] * (nearby - labels)
