"""BCL: balanced contrastive learning (Zhu et al., CVPR 2022)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import Batch, MakeBackbone, Method, View
from bench.registry import register
from methods.parts.contrast import class_averaged_contrast, count_of_class
from methods.parts.heads import CosineHead, linear_head
from methods.parts.projector import Projector
from methods.parts.weights import log_class_prior


class BalancedContrast(Method):
    """A logit-adjusted classifier on the first view, and contrast of the others with class prototypes.

    The base of methods that differ only in the contrast. All views share one forward pass, and so their batch
    statistics; the prototypes are the projected class vectors of the classifier.
    """

    scores = "balanced"
    views = (View("main"), View("simclr_blur"), View("simclr_blur"))
    log_prior: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        classifier: Literal["cosine", "linear"] = "cosine",
        scale: float = 30.0,
        ce_weight: float = 2.0,
        contrast_weight: float = 0.6,
        temperature: float = 0.1,
        hidden: int = 512,
        dim: int = 128,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.ce_weight, self.contrast_weight, self.temperature = ce_weight, contrast_weight, temperature
        self.backbone = make_backbone()
        features = self.backbone.num_features
        self.head: CosineHead | nn.Linear = (
            CosineHead(features, self.num_classes, scale)
            if classifier == "cosine"
            else linear_head(features, self.num_classes)
        )
        self.projector = Projector(features, hidden, dim)
        self.prototype_projector = Projector(features, hidden, dim)
        self.register_buffer("log_prior", log_class_prior(self.class_counts))

    def loss(self, batch: Batch) -> Tensor:
        features = self.backbone(torch.cat(batch.views))
        projections = self.projector(features)
        images = len(batch.labels)
        logits = self.training_logits(features[:images], batch.labels)
        ce = nn.functional.cross_entropy(logits + self.log_prior, batch.labels)
        repeated = batch.labels.repeat(len(batch.views) - 1)
        return self.ce_weight * ce + self.contrast(projections[images:], features[images:], repeated)

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the classifier's logits (B, C); margins are added here."""
        return self.head(features)

    def prototypes(self) -> Tensor:
        """Return unit prototypes (C, dim), with gradient to the classifier."""
        return self.prototype_projector(self.head.weight)

    def contrast(self, projections: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted contrast of projections (N, dim) of features (N, D) with labels (N,)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


@register("bcl", golden=True)
class BCL(BalancedContrast):
    """Contrast whose denominator averages over each class and always has every class's prototype.

    The authors published no code for CIFAR; the defaults are those of two re-implementations (ConCutMix,
    CUDA_LTR). ProCo and BCCL have other views, cropped from 0.08 and not blurred: `views: [main, simclr,
    simclr]` in a protocol. For ImageNet-LT and iNaturalist the authors' code has `ce_weight` 1,
    `contrast_weight` 0.35, `temperature` 0.07, `hidden` 2048 and `dim` 1024.

    Args:
        classifier: "cosine" as in the authors' ImageNet code, or "linear" as ProCo's CIFAR code.
        scale: of the cosines.
        ce_weight: of the logit-adjusted cross-entropy (the paper's lambda).
        contrast_weight: of the balanced contrast (mu).
        temperature: of the similarities.
        hidden: width inside the projectors.
        dim: of the projections.
    """

    def contrast(self, projections: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        loss = balanced_contrast_loss(projections, labels, self.prototypes(), self.temperature)
        return self.contrast_weight * loss


def balanced_contrast_loss(features: Tensor, labels: Tensor, centers: Tensor, temperature: float) -> Tensor:
    """Return BCL's loss of unit features (N, D), all views of all images, and unit centers (C, D).

    Class averaging and class complement, eq. 4 to 6: a class's size is the number of its views in the batch
    plus its center; centers are never anchors.
    """
    sizes = count_of_class(labels, len(centers)) + 1
    return class_averaged_contrast(features, labels, temperature, sizes, centers)
