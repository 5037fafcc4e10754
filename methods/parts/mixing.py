"""Mixing: one image made of two, and a loss that weighs the labels of both.

mixup (Zhang et al., ICLR 2018) blends, CutMix (Yun et al., ICCV 2019) pastes a box. The mixes draw
nothing: random numbers are a method's own `draws`, for which `mixing_draws` makes the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.method import Batch, MakeBackbone
from methods.parts.classifier import Classifier


@dataclass(frozen=True)
class Mix:
    """Mixed images (B, 3, H, W), the labels (B,) of both their sources, and the weights (B,) of the first."""

    images: Tensor
    labels: Tensor
    partners: Tensor
    weights: Tensor

    def weigh(self, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Return w L(labels) + (1 - w) L(partners) for a loss L of the whole batch; w must be all one."""
        weight = self.weights[0]
        return weight * loss_of(self.labels) + (1 - weight) * loss_of(self.partners)


def mixed_loss(per_image_loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, mix: Mix) -> Tensor:
    """Return the mean of w l(z, y) + (1 - w) l(z, y'), with l giving (B,) losses of outputs and labels."""
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
    """Paste a box of the others into the images; the mix's weights are the share of pixels that is left.

    Args:
        weights: (B,); before it is clipped the box has sqrt(1 - w) of the image's sides, so none at 1.
        centres: (B, 2), of the box, as x and y in shares of the image's sides.
        whole: makes whole pixels of the box's sides (CutMix's code cuts off, GLMC's rounds up).
    """
    height, width = images.shape[-2:]
    share = (1 - weights).sqrt()
    in_column, columns = _span(centres[:, 0], whole(width * share), width)
    in_row, rows = _span(centres[:, 1], whole(height * share), height)
    inside = in_row[:, None, :, None] & in_column[:, None, None, :]
    left = 1 - rows * columns / (height * width)
    return Mix(torch.where(inside, others, images), labels, partners, left)


def _span(centre: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return which pixels of an axis lie in a box, (B, side) bool, and how many they are, (B,)."""
    half = (length / 2).floor()
    middle = (side * centre).floor()
    low, high = (middle - half).clamp(min=0), (middle + half).clamp(max=side)
    pixels = torch.arange(side, device=centre.device)
    return (pixels >= low[:, None]) & (pixels < high[:, None]), high - low


def mixing_draws(rng: np.random.Generator, size: int, alpha: float) -> dict[str, np.ndarray]:
    """Draw what mixup and CutMix take, one row for each of `size` images.

    `mix_order` is uniform, for `shuffled`; `mix_weight` is Beta(alpha, alpha) and `mix_centre`, (size, 2),
    uniform: in the published codes one for a whole batch, see `batch_wide`.
    """
    return {
        "mix_order": rng.random(size, dtype=np.float32),
        "mix_weight": rng.beta(alpha, alpha, size).astype(np.float32),
        "mix_centre": rng.random((size, 2), dtype=np.float32),
    }


def shuffled(order: Tensor) -> Tensor:
    """Return a permutation (B,) of a batch, from one uniform number per image."""
    return order.argsort()


def batch_wide(draws: Tensor) -> Tensor:
    """Give every image of a batch what was drawn for its first."""
    return draws[:1].expand_as(draws)


class Mixed(Classifier):
    """Turn a classifier into one that trains on mixed images.

    Put it before the classifier: `class MixedLDAM(Mixed, LDAM)`. Heads and criteria with a margin know
    the label, so the loss is taken once under each of the two labels, never under a soft one.
    """

    def mix(self, batch: Batch) -> Mix:
        """Mix a batch; all its images have one weight."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        return mix.weigh(partial(self.loss_of_features, self.backbone(mix.images)))


class Mixup(Mixed):
    """Blend each image with another of its batch; put it before the classifier, as `Mixed`.

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
