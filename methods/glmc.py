"""GLMC: global and local mixture consistency, cumulative learning (Du et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import Batch, Clock, MakeBackbone, Method, View
from bench.registry import register
from methods.parts.heads import linear_head
from methods.parts.mixing import Mix, batch_wide, cutmix, mixed_loss, mixup
from methods.parts.weights import power_weights


@register("glmc", golden=True, version=2)
class GLMC(Method):
    """Consistency of a mixup and a CutMix view, and a loss that shifts from plain to weighted labels.

    The published CIFAR numbers are of a ResNet-32 four times as wide (the backbone option `width` 4, 7.5
    million parameters). The authors' (consistency, label_weighting, resample) are on CIFAR-100 at factor
    100, 50, 10: (4, 1.2, false), (6, 1.2, true), (4, 1.2, true); on CIFAR-10 at 50: (1, 1.2, false), at 10:
    (2, 1, true), and at 100 (1, 1.2, false) or, in an update of their README, consistency 4.

    Args:
        label_weighting: class weights are n^-label_weighting; 1.2 on CIFAR, 1 on ImageNet-LT.
        consistency: weight of the similarity of the two views.
        resample: draw the second batch's classes by n^0.8 (images by n^-0.2) instead of by n; with
            replacement in both cases.
        dim: of the projection and its prediction.
    """

    alpha: Tensor
    class_weights: Tensor
    views = (View(), View())
    scores = "balanced"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        label_weighting: float = 1.2,
        consistency: float = 4.0,
        resample: bool = False,
        dim: int = 128,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.backbone = make_backbone()
        features = self.backbone.num_features
        self.plain_head = linear_head(features, self.num_classes)
        self.head = linear_head(features, self.num_classes)
        self.projector, self.predictor = linear_head(features, dim), linear_head(dim, dim)
        self.consistency = consistency
        self.extra_sampler = "power_0.8" if resample else "instance"
        self.register_buffer("class_weights", power_weights(self.class_counts, label_weighting))
        self.register_buffer("alpha", torch.tensor(1.0))

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        # quirk: the weight is uniform; the authors' option --beta 0.5 has no effect
        return {
            "mix_weight": rng.random(size, dtype=np.float32),
            "mix_centre": rng.random((size, 2), dtype=np.float32),
        }

    def before_epoch(self, clock: Clock) -> None:
        self.alpha.fill_(1 - (clock.epoch / clock.epochs) ** 2)

    def loss(self, batch: Batch) -> Tensor:
        mixes = self.mix(batch)
        # quirk: one forward pass per view, each with its own batch statistics
        features = [self.backbone(mix.images) for mix in mixes]
        labelled = [
            glmc_loss(self.plain_head(f), self.head(f), mix, self.class_weights, self.alpha)
            for f, mix in zip(features, mixes, strict=True)
        ]
        projected = [self.projector(f) for f in features]
        predicted = [self.predictor(z) for z in projected]
        similar = similarity(predicted[0], projected[1]) + similarity(predicted[1], projected[0])
        return labelled[0] + labelled[1] - self.consistency * similar

    def mix(self, batch: Batch) -> tuple[Mix, Mix]:
        """Blend the first views and paste the second ones, both with the extra batch, by one weight.

        quirk: the labels of the pasted views are weighted by the drawn weight, not by the remaining area.
        """
        assert batch.extra is not None
        (first, second), (other, another) = batch.views, batch.extra.views
        labels, partners = batch.labels, batch.extra.labels
        weights, centres = (batch_wide(batch.draws[name]) for name in ("mix_weight", "mix_centre"))
        pasted = cutmix(second, labels, another, partners, weights, centres, torch.ceil)
        return mixup(first, labels, other, partners, weights), replace(pasted, weights=weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def glmc_loss(plain: Tensor, weighted: Tensor, mix: Mix, class_weights: Tensor, alpha: Tensor) -> Tensor:
    """Return a CE(plain, y~) + (1 - a) CE(weighted, w y~) of one view, y~ the mixed label.

    Both are means over the batch; the weights are not normalised within it.
    """
    ce = partial(F.cross_entropy, reduction="none")
    weighted_ce = partial(F.cross_entropy, weight=class_weights, reduction="none")
    return alpha * mixed_loss(ce, plain, mix) + (1 - alpha) * mixed_loss(weighted_ce, weighted, mix)


def similarity(predicted: Tensor, projected: Tensor) -> Tensor:
    """Return the mean cosine of predictions (B, D) to projections without gradient (SimSiam)."""
    return F.cosine_similarity(predicted.float(), projected.detach().float(), dim=1).mean()
