"""Mixing: one image made of two, and a loss that weights both labels.

mixup (Zhang et al., ICLR 2018) blends, CutMix (Yun et al., ICCV 2019) pastes a box. Random numbers come from
a method's `draws`; `mixing_draws` makes the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import Batch, MakeBackbone
from methods.parts.classifier import Classifier


@dataclass(frozen=True)
class Mix:
    """Mixed images (B, 3, H, W), the labels (B,) of both sources, and the weights (B,) of the first."""

    images: Tensor
    labels: Tensor
    partners: Tensor
    weights: Tensor

    def weigh(self, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Return w L(labels) + (1 - w) L(partners) for a loss L of the whole batch; its w must be equal."""
        weight = self.weights[0]
        return weight * loss_of(self.labels) + (1 - weight) * loss_of(self.partners)

    def targets(self, classes: int) -> Tensor:
        """Return the soft labels (B, C)."""
        own, other = (F.one_hot(labels, classes) for labels in (self.labels, self.partners))
        return self.weights[:, None] * own + (1 - self.weights[:, None]) * other


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over images of -sum_c t_c log p_c."""
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


def mixed_loss(per_image_loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, mix: Mix) -> Tensor:
    """Return the mean of w l(z, y) + (1 - w) l(z, y'), where l returns the images' losses (B,)."""
    own, partner = per_image_loss(outputs, mix.labels), per_image_loss(outputs, mix.partners)
    return (mix.weights * own + (1 - mix.weights) * partner).mean()


def mixup(images: Tensor, labels: Tensor, others: Tensor, partners: Tensor, weights: Tensor) -> Mix:
    """Blend images (B, 3, H, W) with others of labels `partners`: w x + (1 - w) x', with weights (B,)."""
    w = weights.to(images.dtype).view(-1, 1, 1, 1)
    return Mix(w * images + (1 - w) * others, labels, partners, weights)


def cutmix(
    images: Tensor,
    labels: Tensor,
    others: Tensor,
    partners: Tensor,
    weights: Tensor,
    centres: Tensor,
    whole: Callable[[Tensor], Tensor] = torch.floor,
) -> Mix:
    """Paste a box of the others into the images; the mix's weights are the remaining share of pixels.

    Args:
        weights: (B,); before it is clipped the box has sqrt(1 - w) of the image's sides.
        centres: (B, 2), of the box, as x and y in shares of the image's sides.
        whole: rounds the box's sides to pixels (CutMix's code rounds down, GLMC's up).
    """
    height, width = images.shape[-2:]
    share = (1 - weights).sqrt()
    in_column, columns = _span(centres[:, 0], whole(width * share), width)
    in_row, rows = _span(centres[:, 1], whole(height * share), height)
    inside = in_row[:, None, :, None] & in_column[:, None, None, :]
    left = 1 - rows * columns / (height * width)
    return Mix(torch.where(inside, others, images), labels, partners, left)


def _span(centre: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return which pixels of an axis are in a box, (B, side) bool, and their number, (B,)."""
    half = (length / 2).floor()
    middle = (side * centre).floor()
    low, high = (middle - half).clamp(min=0), (middle + half).clamp(max=side)
    pixels = torch.arange(side, device=centre.device)
    return (pixels >= low[:, None]) & (pixels < high[:, None]), high - low


def mixing_draws(rng: np.random.Generator, size: int, alpha: float) -> dict[str, np.ndarray]:
    """Draw the random numbers of mixup and CutMix, one row for each of `size` images.

    `mix_order` is uniform, for `shuffled`; `mix_weight` is Beta(alpha, alpha); `mix_centre`, (size, 2), is
    uniform. The published codes draw one weight and centre per batch, see `batch_wide`.
    """
    return {
        "mix_order": rng.random(size, dtype=np.float32),
        "mix_weight": rng.beta(alpha, alpha, size).astype(np.float32),
        "mix_centre": rng.random((size, 2), dtype=np.float32),
    }


def pasting_draws(rng: np.random.Generator, size: int, alpha: float) -> dict[str, np.ndarray]:
    """Draw the random numbers of `paste_extra`, one row for each of `size` images."""
    return mixing_draws(rng, size, alpha) | {"mix_switch": rng.random(size, dtype=np.float32)}


def paste_extra(batch: Batch, probability: Tensor | float) -> Mix:
    """Paste boxes of the extra batch's images into a batch, with that probability for a whole batch."""
    assert batch.extra is not None
    weights, centres, switch = (
        batch_wide(batch.draws[name]) for name in ("mix_weight", "mix_centre", "mix_switch")
    )
    weights = torch.where(switch < probability, weights, 1.0)
    extra = batch.extra
    return cutmix(batch.images, batch.labels, extra.images, extra.labels, weights, centres)


def shuffled(order: Tensor) -> Tensor:
    """Return a permutation (B,) of a batch, from one uniform number per image."""
    return order.argsort()


def batch_wide(draws: Tensor) -> Tensor:
    """Return the first image's draws for all images of a batch."""
    return draws[:1].expand_as(draws)


class Mixed(Classifier):
    """Turn a classifier into one that trains on mixed images.

    Put it before the classifier: `class MixedLDAM(Mixed, LDAM)`. The loss is computed once for each of the
    two labels, never for a soft one, because heads and criteria with a margin need the label.
    """

    def mix(self, batch: Batch) -> Mix:
        """Mix a batch, with one weight for all images."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        return mix.weigh(partial(self.loss_of_features, self.backbone(mix.images)))


class Mixup(Mixed):
    """Blend each image with another of its batch; put it before the classifier, like `Mixed`.

    Args:
        alpha: of the Beta distribution of the weight, one per batch; 1 is uniform.
    """

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, alpha: float = 1.0, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.alpha = alpha

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return super().draws(rng, size) | mixing_draws(rng, size, self.alpha)

    def mix(self, batch: Batch) -> Mix:
        other = shuffled(batch.draws["mix_order"])
        weights = batch_wide(batch.draws["mix_weight"])
        return mixup(batch.images, batch.labels, batch.images[other], batch.labels[other], weights)
