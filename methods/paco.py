"""PaCo and GPaCo: parametric contrastive learning (Cui et al., ICCV 2021 and TPAMI 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.method import Batch, Clock, MakeBackbone, Method, View
from bench.registry import register
from methods.parts.contrast import unit
from methods.parts.heads import linear_head
from methods.parts.momentum import MomentumCopy
from methods.parts.projector import Projector
from methods.parts.queue import KeyQueue
from methods.parts.weights import log_class_prior


@register("gpaco", golden=True)
class GPaCo(Method):
    """One softmax over the classifier's logits and the similarities to other images; both views are anchors.

    The defaults are the authors' for CIFAR-100-LT; on ImageNet-LT `alpha` is 0.045 (ResNet-50), `temperature`
    0.2 and `queue` 8192. On CIFAR they blur 0.2 of the second views, PaCo 0.5; we blur as PaCo.

    Args:
        alpha: weight of each image of the class, relative to the class's own logit.
        temperature: of the similarities; that of the logits is 1.
        smoothing: label smoothing of the logits.
        queue: number of keys kept.
        dim: of the projections.
    """

    scores = "balanced"
    views = (View("main"), View("simclr_blur"))
    log_prior: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        alpha: float = 0.01,
        temperature: float = 0.05,
        smoothing: float = 0.0,
        queue: int = 1024,
        dim: int = 32,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.alpha, self.temperature, self.smoothing = alpha, temperature, smoothing
        self.backbone = make_backbone()
        self.head = linear_head(self.backbone.num_features, self.num_classes)
        self.projector = self.make_projector(self.backbone.num_features, dim)
        self.queue = KeyQueue(queue, dim, self.num_classes)
        self.register_buffer("log_prior", log_class_prior(self.class_counts))

    def make_projector(self, features: int, dim: int) -> nn.Module:
        """Build the projector, (B, features) -> (B, dim)."""
        hidden = (nn.Linear(features, features), nn.ReLU())
        return nn.Sequential(*hidden, nn.Linear(features, features), nn.ReLU(), nn.Linear(features, dim))

    def encode(self, query_view: Tensor, key_view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the anchors' logits (A, C), the query and the key projections (B, dim)."""
        query, key = self.backbone(query_view), self.backbone(key_view)  # with separate batch statistics
        logits = self.head(torch.cat([query, key]))
        return logits, unit(self.projector(query)), unit(self.projector(key))

    def loss(self, batch: Batch) -> Tensor:
        logits, query, key = self.encode(*batch.views)
        self.queue.stage(key)
        with torch.autocast(query.device.type, enabled=False):
            return paco_loss(
                logits.float() + self.log_prior,
                torch.cat([query, key, self.queue.keys]),
                torch.cat([batch.labels, batch.labels, self.queue.labels]),
                self.alpha,
                self.temperature,
                self.smoothing,
            )

    def after_step(self, clock: Clock, batch: Batch) -> None:
        self.queue.enqueue(batch.labels)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


@register("paco", golden=True)
class PaCo(GPaCo):
    """One softmax over the classifier's logits and the similarities to keys of a momentum encoder.

    The defaults are the authors' for CIFAR-100-LT; on ImageNet-LT `alpha` is 0.05, `temperature` 0.2 and
    `queue` 8192.

    Args:
        momentum: of the key encoder.
    """

    key_momentum = "momentum"

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, momentum: float = 0.999, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.key_encoder = MomentumCopy(self.encoder, momentum)

    @property
    def encoder(self) -> nn.Sequential:
        """The query encoder: backbone, then projector."""
        return nn.Sequential(self.backbone, self.projector)

    def make_projector(self, features: int, dim: int) -> nn.Module:
        return Projector(features, features, dim)

    def encode(self, query_view: Tensor, key_view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.backbone(query_view)
        with torch.no_grad():
            key = self.key_encoder(key_view)
        return self.head(query), self.projector(query), key

    def after_step(self, clock: Clock, batch: Batch) -> None:
        super().after_step(clock, batch)
        self.key_encoder.update(self.encoder)


def paco_loss(
    logits: Tensor, features: Tensor, labels: Tensor, alpha: float, temperature: float, smoothing: float = 0.0
) -> Tensor:
    """Return the mean over anchors of -sum_x w_x log p(x) / sum_x w_x.

    p is one softmax over the adjusted logits of all classes and the similarities to all other features.
    w is the smoothed one-hot label on the classes, and `alpha` on each feature of the anchor's class.

    Args:
        logits: (A, C), log prior added; the anchors are the first A features.
        features: (N, D), unit norm; `labels`: (N,).
    """
    anchors, classes = logits.shape
    itself = torch.eye(anchors, len(features), dtype=torch.bool, device=labels.device)
    similarity = (features[:anchors] @ features.T / temperature).masked_fill(itself, -torch.inf)
    log_p = torch.cat([logits, similarity], dim=1).log_softmax(dim=1)
    one_hot = F.one_hot(labels[:anchors], classes).to(log_p)
    target = (1 - smoothing) * one_hot + smoothing / max(classes - 1, 1) * (1 - one_hot)
    same = (labels[:anchors, None] == labels) & ~itself
    weights = torch.cat([target, alpha * same], dim=1)
    sums = torch.where(weights > 0, weights * log_p, 0).sum(dim=1)
    return -(sums / weights.sum(dim=1)).mean()
