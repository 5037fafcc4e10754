"""DeiT-LT: a vision transformer from scratch, taught by a CNN (Rangwani et al., CVPR 2024)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.method import Batch, Clock, MakeBackbone, Method
from bench.registry import register
from methods.lift import enlarge, input_side
from methods.parts.mixing import Mix, batch_wide, cutmix, mixup, pasting_draws, shuffled, soft_cross_entropy
from methods.parts.teacher import Teacher
from methods.parts.weights import DeferredWeights, weighted_cross_entropy


@register("deit_lt", golden=True)
class DeiTLT(Method):
    """A ViT with a class and a distillation token: one learns the labels, the other the teacher's.

    Images are mixed by mixup or CutMix, and the teacher sees the same mixed images; its predictions are hard
    labels. Late in training images are not mixed, and the second loss is weighted by the classes of the
    teacher's labels. The logits are the mean of both heads. The teacher is the parent, a CNN for small
    images, such as PaCo's ResNet-32 (the authors' is trained with SAM too): set `backbone` at its label in
    the recipe. The student enlarges images to its input size. The distillation token is one of timm's
    registers.

    Args:
        late_from: share of the epochs after which images are not mixed and classes are weighted.
        beta: of the effective number of samples, for those weights.
        mixup_alpha: of mixup's Beta distribution; CutMix's is uniform, and each is used for half of the
            batches.
        smoothing: label smoothing.
    """

    needs_backbone: ClassVar[Literal["", "vit"]] = "vit"
    needs_parent = True
    usual_parent = "paco"
    scores = "balanced"
    backbone: Backbone
    mixing: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        late_from: float = 1100 / 1200,
        beta: float = 0.9999,
        mixup_alpha: float = 0.8,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.mixup_alpha, self.smoothing = mixup_alpha, smoothing
        self.backbone = make_backbone(reg_tokens=1)
        self.size = input_side(self.backbone)
        features = self.backbone.num_features
        self.head = nn.Linear(features, self.num_classes)
        self.distilled_head = nn.Linear(features, self.num_classes)
        self.class_weights = DeferredWeights(self.class_counts, late_from, beta)
        self.register_buffer("mixing", torch.tensor(True))
        self.teacher = Teacher()

    def start_from(self, parent: Method) -> None:
        self.teacher.take(parent)

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        drawn = pasting_draws(rng, size, 1.0)
        blend = rng.beta(self.mixup_alpha, self.mixup_alpha, size).astype(np.float32)
        return drawn | {"blend_weight": blend}

    def before_epoch(self, clock: Clock) -> None:
        self.class_weights.update(clock)
        self.mixing.fill_(not self.class_weights.on(clock))

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the class token and of the distillation token, (B, C) each."""
        tokens = self.backbone.feature_map(enlarge(images, self.size))
        return self.head(tokens[:, 0]), self.distilled_head(tokens[:, 1])

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a batch's images, mixed unless it is late, and their soft targets (B, C)."""
        order = shuffled(batch.draws["mix_order"])
        others, partners = batch.images[order], batch.labels[order]
        switch, blend_weight, box_weight, centres = (
            batch_wide(batch.draws[name])
            for name in ("mix_switch", "blend_weight", "mix_weight", "mix_centre")
        )
        blended = mixup(batch.images, batch.labels, others, partners, blend_weight)
        pasted = cutmix(batch.images, batch.labels, others, partners, box_weight, centres)
        blend = switch < 0.5
        images = torch.where(blend[:, None, None, None], blended.images, pasted.images)
        weights = torch.where(blend, blended.weights, pasted.weights)
        images = torch.where(self.mixing, images, batch.images)
        weights = torch.where(self.mixing, weights, 1.0)
        smooth = torch.where(self.mixing, self.smoothing, 0.0)
        targets = Mix(images, batch.labels, partners, weights).targets(self.num_classes)
        return images, (1 - smooth) * targets + smooth / self.num_classes

    def loss(self, batch: Batch) -> Tensor:
        images, targets = self.mixed(batch)
        classified, distilled = self.logits(images)
        return deit_lt_loss(classified, distilled, self.teacher(images), targets, self.class_weights.now)

    def forward(self, images: Tensor) -> Tensor:
        classified, distilled = self.logits(images)
        return (classified + distilled) / 2


def deit_lt_loss(
    classified: Tensor, distilled: Tensor, teacher: Tensor, targets: Tensor, class_weights: Tensor
) -> Tensor:
    """Return the mean of the cross-entropies with soft targets (B, C) and with the teacher's labels.

    The second is weighted by the classes of the teacher's labels, normalised over the batch.
    """
    own = soft_cross_entropy(classified, targets)
    learnt = weighted_cross_entropy(distilled, teacher.argmax(dim=1), class_weights)
    return own / 2 + learnt / 2
