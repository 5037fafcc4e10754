"""The base of most methods: a backbone, a head, and a loss on the head's outputs."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from bench.method import Batch, Clock, MakeBackbone, Method
from methods.parts.embedding import Width, embedded
from methods.parts.heads import linear_head
from methods.parts.margin import DEFAULT_MARGINS, DEFAULT_SCALE, MARGIN_HEADS, MarginHead, MarginName
from methods.parts.weights import DeferredWeights, weighted_cross_entropy


class Classifier(Method):
    """Train one backbone and one head by a criterion on the head's outputs.

    Args:
        reweight_from: share of the epochs after which class-balanced weights apply; 0 is the class-balanced
            loss, 0.8 is DRW as published (epoch 160 of 200), None is never.
        beta: of the effective number of samples, for those weights; 1 is inverse frequency.
        auxiliary: margin heads ("arcface", "cosface", "sphereface") on the same features, whose
            cross-entropies are added to the loss; logits come only from the main head.
        embedding: width of a linear layer with batch norm between the backbone and all heads; "same" is the
            backbone's width, null is no such layer.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        reweight_from: float | None = None,
        beta: float = 0.9999,
        auxiliary: tuple[MarginName, ...] = (),
        embedding: Width = None,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.backbone = embedded(make_backbone(), embedding)
        self.head = self.make_head(self.backbone.num_features, self.num_classes)
        self.class_weights = DeferredWeights(self.class_counts, reweight_from, beta)
        self.auxiliary = nn.ModuleDict({name: self.make_margin_head(name) for name in auxiliary})

    def unweighted(self) -> bool:
        """Whether class weights never apply, so that a weighted mean is a mean, see `mean_over_images`."""
        return self.class_weights.start is None

    def make_head(self, features: int, classes: int) -> nn.Module:
        """Build the head, (B, features) -> (B, classes)."""
        return linear_head(features, classes)

    def make_margin_head(
        self, name: MarginName, margin: float | None = None, scale: float = DEFAULT_SCALE
    ) -> MarginHead:
        """Build a margin head of that name on the backbone's features."""
        margin = DEFAULT_MARGINS[name] if margin is None else margin
        return MARGIN_HEADS[name](self.backbone.num_features, self.num_classes, margin, scale)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the head's outputs (B, C); `self.class_weights.now` are the weights."""
        raise NotImplementedError

    def before_epoch(self, clock: Clock) -> None:
        self.class_weights.update(clock)

    def before_step(self, clock: Clock, batch: Batch) -> None:
        for module in self.modules():
            if isinstance(module, MarginHead):
                module.advance(clock)

    def loss(self, batch: Batch) -> Tensor:
        features = self.backbone(batch.images)
        return self.loss_of_features(features, batch.labels)

    def loss_of_features(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the criterion of the main head plus the cross-entropies of the auxiliary ones."""
        main = self.criterion(self.training_outputs(features, labels), labels)
        return main + self.auxiliary_loss(features, labels) if self.auxiliary else main

    def auxiliary_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the auxiliary heads' cross-entropies, 0 if there are none."""
        total = features.new_zeros(())
        for head in self.auxiliary.values():
            assert isinstance(head, MarginHead)
            logits = head.margin_logits(features, labels)
            total = total + weighted_cross_entropy(logits, labels, self.class_weights.now)
        return total

    def training_outputs(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the input of the criterion, (B, C); margins that depend on the label are added here."""
        return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))
