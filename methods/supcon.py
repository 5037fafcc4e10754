"""Supervised contrastive learning (Khosla et al., NeurIPS 2020), with a classifier or before one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.method import Batch, MakeBackbone, Method, View
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.crt import CRT
from methods.parts.contrast import inner_products
from methods.parts.frozen import BatchNorm
from methods.parts.projector import Projector
from methods.parts.prototypes import RunningPrototypes

Anchors = Literal["all", "one"]


@register("supcon", golden=True)
class SupCon(CrossEntropy):
    """Cross-entropy on one view and supervised contrast between two others, in one forward pass.

    Args:
        contrast_weight: of the contrastive term.
        temperature: of the similarities.
        base_temperature: the loss is multiplied by temperature / base_temperature. The authors' default of
            0.07 scales it by 1.43 at temperature 0.1; ours equals the temperature, which scales by 1.
        anchors: "all" views or only the first ("one").
        hidden: width inside the projector.
        dim: of the projections.
    """

    views = (View("main"), View("simclr"), View("simclr"))

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        contrast_weight: float = 1.0,
        temperature: float = 0.1,
        base_temperature: float = 0.1,
        anchors: Anchors = "all",
        hidden: int = 512,
        dim: int = 128,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.contrast_weight, self.anchors = contrast_weight, anchors
        self.temperature, self.base_temperature = temperature, base_temperature
        self.projector = Projector(self.backbone.num_features, hidden, dim)

    def loss(self, batch: Batch) -> Tensor:
        features = self.backbone(torch.cat(batch.views))
        main, *contrasted = features.chunk(len(batch.views))
        views = self.projector(torch.cat(contrasted)).view(len(contrasted), len(batch.labels), -1)
        contrast = supcon_loss(views, batch.labels, self.temperature, self.base_temperature, self.anchors)
        return self.loss_of_features(main, batch.labels) + self.contrast_weight * contrast


@register("supcon_pretrain", golden=True, version=3)
class SupConPretrain(Method):
    """The first of two stages: only supervised contrast; a linear stage follows.

    Evaluated alone, its logits are the cosines of an image's projection to the running class means.

    Args:
        temperature: of the similarities.
        base_temperature: see "supcon"; here it is the authors' 0.07.
        anchors: "all" views or only the first ("one").
        hidden: width inside the projector; None is the backbone's, as in the authors' code.
        dim: of the projections.
    """

    views = (View("supcon"), View("supcon"))
    scores = "distances"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        temperature: float = 0.1,
        base_temperature: float = 0.07,
        anchors: Anchors = "all",
        hidden: int | None = None,
        dim: int = 128,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.temperature, self.base_temperature, self.anchors = temperature, base_temperature, anchors
        self.backbone = make_backbone()
        features = self.backbone.num_features
        self.projector = Projector(features, hidden or features, dim, batch_norm=False)
        self.prototypes = RunningPrototypes(self.num_classes, dim)

    def loss(self, batch: Batch) -> Tensor:
        projections = self.projector(self.backbone(torch.cat(batch.views)))
        self.prototypes.follow(projections, batch.labels.repeat(len(batch.views)))
        views = projections.view(len(batch.views), len(batch.labels), -1)
        return supcon_loss(views, batch.labels, self.temperature, self.base_temperature, self.anchors)

    def forward(self, images: Tensor) -> Tensor:
        return self.prototypes.cosines(self.projector(self.backbone(images)))


@register("supcon_linear", version=2)
class SupConLinear(CRT):
    """The second stage: a linear classifier on the frozen encoder, from class-balanced batches.

    As in the authors' evaluation, its images are resized crops, like the encoder's, and the encoder's batch
    norm is fixed. On padded crops, which the encoder has not seen, the head would ignore much of the
    features.
    """

    usual_parent = "supcon_pretrain"
    views = (View("supcon_linear"),)

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        batch_norm: BatchNorm = "eval",
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, batch_norm=batch_norm, **common)


def supcon_loss(
    views: Tensor,
    labels: Tensor | None,
    temperature: float,
    base_temperature: float,
    anchors: Anchors = "all",
) -> Tensor:
    """Return (t / t_base) * mean_i -1/|P(i)| sum_{p in P(i)} log p_ip of unit vectors (V, B, D), eq. 2.

    Without labels only an image's own views are positives (SimCLR). quirk: an anchor without a positive is 0
    and counts in the mean, as in the authors' code since December 2023.
    """
    count, size, _ = views.shape
    everything = views.flatten(0, 1)
    y = torch.arange(size, device=views.device) if labels is None else labels
    y = y.repeat(count)
    chosen = slice(None) if anchors == "all" else slice(size)
    logits = inner_products(everything[chosen], everything) / temperature
    itself = torch.eye(len(everything), dtype=torch.bool, device=views.device)[chosen]
    positive = (y[chosen, None] == y) & ~itself
    log_p = logits - logits.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    sums = log_p.masked_fill(~positive, 0).sum(dim=1)
    per_anchor = -sums / positive.sum(dim=1).clamp(min=1)
    return temperature / base_temperature * per_anchor.mean()
