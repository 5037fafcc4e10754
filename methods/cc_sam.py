"""CC-SAM: class-conditional sharpness-aware minimisation (Zhou et al., CVPR 2023), its two stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Batch, Clock, MakeBackbone, Method
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.contrast import count_of_class
from methods.parts.frozen import FrozenBackbone
from methods.parts.mixing import Mixup


@register("cc_sam_stage_1", golden=True)
class CCSAMStage1(Mixup, CrossEntropy):
    """Mixup cross-entropy, and cross-entropy of a classifier displaced uphill for each class separately.

    quirk: at the authors' `noise` the classifier moves by less than a millionth of its length, so the second
    term is nearly a cross-entropy of mixed images with the first of their labels.

    Args:
        flat: weight of the second term: 0.3 on CIFAR-10, 0.5 on CIFAR-100.
        noise: length of the displacement, in the paper's bound.
    """

    head: nn.Linear

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        flat: float = 0.5,
        noise: float = 1e-6,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.flat, self.noise = flat, noise

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        features, targets = self.backbone(mix.images), mix.targets(self.num_classes)
        plain = mix.weigh(lambda labels: self.loss_of_features(features, labels))
        moved = moved_logits(features, self.head, targets, mix.labels, self.class_counts, self.noise)
        return (1 - self.flat) * plain + self.flat * F.cross_entropy(moved, mix.labels)


@register("cc_sam", golden=True)
class CCSAM(FrozenBackbone, CrossEntropy):
    """The classifier, trained further on class-balanced batches with rare classes' features moved uphill.

    Args:
        largest: the moved features' share of the loss grows with the epochs up to this: 1 on CIFAR-10, 0.3
            on CIFAR-100.
    """

    usual_parent = "cc_sam_stage_1"
    keeps_head = True
    head: nn.Linear
    rarity: Tensor
    share: Tensor

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, largest: float = 0.3, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.largest = largest
        self.register_buffer("rarity", rarity_weights(self.class_counts))
        self.register_buffer("share", torch.zeros(()))

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, CrossEntropy):
            raise BenchError(f"cc_sam starts from cc_sam_stage_1, not from {type(parent).__name__}")
        super().start_from(parent)

    def sampler(self, epoch: int, epochs: int) -> str:
        return "class_balanced"

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        self.share.fill_(min((clock.epoch + 1) / clock.epochs, self.largest))

    def loss_of_features(self, features: Tensor, labels: Tensor) -> Tensor:
        moved = adversarial_features(features, self.head, labels, self.rarity)
        hard = self.rarity[labels] * F.cross_entropy(self.head(moved), labels, reduction="none")
        plain = super().loss_of_features(features, labels)
        return self.share * hard.mean() + (1 - self.share) * plain


def moved_logits(
    features: Tensor,
    head: nn.Linear,
    targets: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    noise: float,
) -> Tensor:
    """Return each image's logits with the head displaced for its class: p + r g_c / ||g_c||, p in (W, b).

    g_c is the gradient of the mean cross-entropy of the class's images, whose `targets` (B, C) may be mixed,
    and r = noise sqrt(T / (2 ||g_c||)) (K / (n_c - 1))^(1/4), with T the norm and K the number of the head's
    weights. The displacement is a constant: the head's gradient ignores it, that of the features passes
    through the displaced head. It is never formed explicitly: f_i G_c = sum_j (f_i f_j) q_j over c.

    A class of one image is treated as one of two (the authors' code divides by zero).
    """
    logits = head(features)
    with torch.autocast(features.device.type, enabled=False):
        rows = features.to(head.weight.dtype)
        weight, bias = head.weight.detach(), head.bias.detach()
        fixed = rows.detach()
        same = (labels[:, None] == labels).to(rows)
        with torch.no_grad():
            pull = (F.linear(fixed, weight, bias).softmax(dim=1) - targets) / same.sum(dim=1, keepdim=True)
            pairs = (fixed @ fixed.T) * (pull @ pull.T) * same
            size_w = (same @ pairs.sum(dim=1)).clamp(min=1e-24).sqrt()
            pull_b = same @ pull
            size_b = pull_b.norm(dim=1).clamp(min=1e-12)
            total = (weight.square().sum() + bias.square().sum()).sqrt() + 1e-12
            of_class = ((weight.numel() + bias.numel()) / (class_counts - 1).clamp(min=1).to(rows)) ** 0.25
            length = noise * (total / 2).sqrt() * of_class[labels]
            along_w, along_b = length * size_w**-1.5, length * size_b**-1.5
        uphill = ((rows @ fixed.T) * same) @ pull
        return logits + along_w[:, None] * uphill + along_b[:, None] * pull_b


def rarity_weights(class_counts: Tensor) -> Tensor:
    """Return log(n_max / n_c + 0.01) / 2, (C,): nearly 0 for the most frequent class."""
    counts = class_counts.clamp(min=1).double()
    return ((counts.max() / counts + 0.01).log() / 2).float()


def adversarial_features(features: Tensor, head: nn.Linear, labels: Tensor, lengths: Tensor) -> Tensor:
    """Return features (B, D) moved uphill by `lengths` (C,), along a unit step for each class's images."""
    with torch.no_grad():
        fixed = features.to(head.weight.dtype)
        pull = F.linear(fixed, head.weight, head.bias).softmax(dim=1)
        pull = pull - F.one_hot(labels, pull.shape[1])
        uphill = pull @ head.weight
        sizes = torch.zeros(pull.shape[1], device=labels.device, dtype=uphill.dtype)
        sizes = sizes.index_add(0, labels, uphill.square().sum(dim=1)).sqrt()
        present = count_of_class(labels, pull.shape[1]) > 0
        sizes = torch.where(present, sizes, 1.0).clamp(min=1e-12)
        return fixed + (lengths / sizes)[labels][:, None] * uphill
