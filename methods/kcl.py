"""KCL: k-positive contrastive learning (Kang et al., ICLR 2021).

Stage 1 trains an encoder with a momentum encoder and a queue; stage 2 ("kcl_linear") trains the classifier
whose accuracy is published.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.method import Batch, Clock, MakeBackbone, Method, View
from bench.registry import register
from methods.dscl import DSCLLinear
from methods.parts.contrast import unit
from methods.parts.momentum import MomentumCopy
from methods.parts.prototypes import RunningPrototypes
from methods.parts.queue import KeyQueue


@register("kcl")
class KCL(Method):
    """Supervised contrast in which a frequent class has no more positives than a rare one.

    The authors train ImageNet-LT at 224 pixels with `queue` 65536; our default is for 32 pixels. In their
    code the order of ties in a sort decides which of the class's keys are positives; we draw them, as in
    TSC's code, with which the loss is compared. Evaluated alone, its logits are the cosines of an image to
    the running class means.

    Args:
        positives: maximum number of the class's keys that are positives, beside the own key.
        temperature: of all similarities.
        queue: number of keys kept.
        momentum: of the key encoder.
        dim: of the projections.
    """

    scores = "distances"
    key_momentum = "momentum"
    views = (View("dscl_key"), View("dscl_key"))  # crop, flip and a jitter without hue, as in both codes

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        positives: int = 6,
        temperature: float = 0.07,
        queue: int = 4096,
        momentum: float = 0.999,
        dim: int = 128,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.positives, self.temperature = positives, temperature
        self.backbone = make_backbone()
        width = self.backbone.num_features
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        self.key_encoder = MomentumCopy(self.encoder, momentum)
        self.queue = KeyQueue(queue, dim, self.num_classes)
        self.queue.labels.fill_(-1)  # quirk: an unfilled slot is a random negative without a class
        self.prototypes = RunningPrototypes(self.num_classes, dim)

    @property
    def encoder(self) -> nn.Sequential:
        """The query encoder: backbone, then projector."""
        return nn.Sequential(self.backbone, self.projector)

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return {"picks": rng.random((size, self.positives), dtype=np.float32)}

    def loss(self, batch: Batch) -> Tensor:
        query_view, key_view = batch.views
        query = unit(self.encoder(query_view))
        with torch.no_grad():
            key = unit(self.key_encoder(key_view))
        self.queue.stage(key)
        self.prototypes.follow(query, batch.labels)
        with torch.autocast(query.device.type, enabled=False):
            picked = pick(batch.labels[:, None] == self.queue.labels, batch.draws["picks"])
            return self.contrast(query, key, picked.to(query), batch.labels)

    def contrast(self, query: Tensor, key: Tensor, picked: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, where `picked` (B, K) marks the positives in the queue."""
        return kcl_loss(query, key, self.queue.keys, picked, self.temperature)

    def after_step(self, clock: Clock, batch: Batch) -> None:
        self.key_encoder.update(self.encoder)
        self.queue.enqueue(batch.labels)

    def forward(self, images: Tensor) -> Tensor:
        return self.prototypes.cosines(unit(self.encoder(images)))


@register("kcl_linear")
class KCLLinear(DSCLLinear):
    """The second stage of KCL: a linear classifier on the frozen encoder, from class-balanced batches."""

    usual_parent = "kcl"
    views = (View("dscl_key"),)


def pick(positive: Tensor, draws: Tensor) -> Tensor:
    """Pick, in each row of `positive` (B, K) bool, one true element per draw (B, k) in [0, 1), all different.

    Of a row with fewer true elements than draws all are picked.
    """
    left = positive
    for draw in draws.T:
        count = left.sum(dim=1)
        rank = 1 + torch.minimum((draw * count).long(), (count - 1).clamp(min=0))
        left = left & (left.cumsum(dim=1) != rank[:, None])
    return positive & ~left


def kcl_loss(query: Tensor, key: Tensor, others: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Return the mean over queries of -[log p(own key) + sum_x w_x log p(x)] / (1 + #{x: w_x > 0}).

    p is a softmax of similarities over the own key and all `others`; other images of the batch are not in it.
    In KCL, w is 1 for the picked positives and 0 for the rest.

    Args:
        query, key: (B, D), unit norm; `others`: (M, D), unit norm.
        weights: (B, M), at least 0.
    """
    own = (query * key).sum(dim=1, keepdim=True)
    log_p = (torch.cat([own, query @ others.T], dim=1) / temperature).log_softmax(dim=1)
    sums = log_p[:, 0] + (weights * log_p[:, 1:]).sum(dim=1)
    return -(sums / (1 + weights.gt(0).sum(dim=1))).mean()
