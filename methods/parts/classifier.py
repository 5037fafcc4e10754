"""The commonest shape of a method: a backbone, a head, a loss on the head's outputs."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from bench.method import Batch, Clock, MakeBackbone, Method
from methods.parts.heads import linear_head
from methods.parts.weights import DeferredWeights


class Classifier(Method):
    """Train one backbone and one head by a criterion on the head's outputs.

    Args:
        reweight_from: share of the epochs after which class-balanced weights apply; 0 is the
            class-balanced loss, 0.8 is DRW as published (epoch 160 of 200), None is never.
        beta: of the effective number of samples, for those weights.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        reweight_from: float | None = None,
        beta: float = 0.9999,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.backbone = make_backbone()
        self.head = self.make_head(self.backbone.num_features, self.num_classes)
        self.class_weights = DeferredWeights(self.class_counts, reweight_from, beta)

    def make_head(self, features: int, classes: int) -> nn.Module:
        """Build the head, (B, features) -> (B, classes)."""
        return linear_head(features, classes)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the head's outputs (B, C); `self.class_weights.now` are the weights."""
        raise NotImplementedError

    def before_epoch(self, clock: Clock) -> None:
        self.class_weights.update(clock)

    def loss(self, batch: Batch) -> Tensor:
        return self.criterion(self.head(self.backbone(batch.images)), batch.labels)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))
