"""MDCS: more diverse experts with consistency self-distillation (Zhao et al., ICCV 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.method import Batch, Clock, MakeBackbone, View
from bench.registry import register
from methods.parts.adjusted_experts import AdjustedExperts

#: The powers of the class counts in the experts' logit adjustment.
POWERS = (-0.5, 1.0, 2.5)


@register("mdcs", golden=True)
class MDCS(AdjustedExperts):
    """Three experts for head, balance and tail; correctly classified weak views teach strong ones.

    The authors' weak view is crop, flip and a rotation by up to 15 degrees ("crop_flip_rotate"); on CIFAR
    they train 400 epochs with batches of 64 images.

    Args:
        distil_weight: final weight of the divergences from weak to strong views.
        distil_warmup: epochs over which it grows to that.
    """

    views = (View("main"), View("autoaugment_cutout"))
    ramp: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        distil_weight: float = 0.6,
        distil_warmup: int = 20,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        if self.backbone.experts != len(POWERS):
            raise BenchError(f"mdcs has three experts, got experts: {self.backbone.experts}; leave it out")
        self.distil_weight, self.distil_warmup = distil_weight, distil_warmup
        self.register_buffer("adjustments", mdcs_adjustments(self.class_counts))
        self.register_buffer("ramp", torch.zeros(()))

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        self.ramp.fill_(min((clock.epoch + 1) / max(self.distil_warmup, 1), 1.0))

    def loss(self, batch: Batch) -> Tensor:
        features = self.backbone(torch.cat(batch.views))
        logits = self.training_outputs(features, batch.labels)
        return mdcs_loss(logits, batch.labels, self.adjustments, self.distil_weight * self.ramp)


def mdcs_adjustments(class_counts: Tensor) -> Tensor:
    """Return log(n^p + 1e-9) of each expert's power p, (3, C)."""
    counts = class_counts.clamp(min=1).double()
    return torch.stack([(counts**power + 1e-9).log() for power in POWERS]).float()


def mdcs_loss(logits: Tensor, labels: Tensor, adjustments: Tensor, distil_weight: Tensor | float) -> Tensor:
    """Return sum_k CE(z_k + a_k) over both views + w sum_k KL(weak_k || strong_k) where weak_k is right.

    `logits` are (K, 2B, C), weak views first. The divergence is a mean over the images whose weak view this
    expert classifies correctly, adjusted; the weak view has no gradient.
    """
    adjusted = logits + adjustments[:, None]
    both = labels.repeat(2)
    classified = torch.stack([F.cross_entropy(z, both) for z in adjusted]).sum()
    weak, strong = adjusted.chunk(2, dim=1)
    right = (weak.argmax(dim=2) == labels).to(weak)
    teacher = weak.detach().softmax(dim=2)
    divergence = (teacher * (weak.detach().log_softmax(dim=2) - strong.log_softmax(dim=2))).sum(dim=2)
    taught = (right * divergence).sum(dim=1) / right.sum(dim=1).clamp(min=1)
    return classified + distil_weight * taught.sum()
