"""UniMix with the Bayias-compensated loss (Xu et al., NeurIPS 2021)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.logit_adjustment import LogitAdjustment
from methods.parts.mixing import mixed_loss, mixup


@register("unimix", golden=True)
class UniMix(LogitAdjustment):
    """Blend each image with a probably rare one of its batch, mostly in favour of the rarer one.

    The Bayias-compensated loss, CE(z + log prior - log uniform), is the logit-adjusted loss.

    Args:
        alpha: of the Beta distribution that shifts the weights.
        partner_tau: partners are drawn by n_c^tau; -0.1 for CIFAR-100-LT, -0.5 for CIFAR-10-LT.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        alpha: float = 0.8,
        partner_tau: float = -0.1,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        if self.auxiliary:
            raise BenchError("unimix weights each image separately: leave auxiliary margin heads out")
        self.alpha, self.partner_tau = alpha, partner_tau

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return {
            "mix_partner": rng.random(size, dtype=np.float32),
            "mix_shift": rng.beta(self.alpha, self.alpha, size).astype(np.float32),
        }

    def loss(self, batch: Batch) -> Tensor:
        shares = partner_probabilities(batch.labels, self.class_counts, self.partner_tau)
        other = drawn(shares, batch.draws["mix_partner"])
        partners = batch.labels[other]
        weights = unimix_weights(batch.labels, partners, self.class_counts, batch.draws["mix_shift"])
        mix = mixup(batch.images, batch.labels, batch.images[other], partners, weights)
        adjusted = self.head(self.backbone(mix.images)) + self.tau * self.log_prior
        per_image = partial(F.cross_entropy, weight=self.class_weights.now, reduction="none")
        return mixed_loss(per_image, adjusted, mix)


def partner_probabilities(labels: Tensor, class_counts: Tensor, tau: float) -> Tensor:
    """Return each image's probability (B,) of being a partner: n_y^tau over the batch's sum."""
    weights = class_counts[labels].clamp(min=1).float() ** tau
    return weights / weights.sum()


def drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return positions (B,) drawn with replacement, from one uniform number each."""
    return torch.searchsorted(probabilities.cumsum(0), uniform).clamp(max=len(probabilities) - 1)


def unimix_weights(labels: Tensor, partners: Tensor, class_counts: Tensor, shift: Tensor) -> Tensor:
    """Return the weights (B,) of images and labels: shift + n' / (n + n'), minus 1 if above 1."""
    own, partner = (class_counts[y].clamp(min=1).float() for y in (labels, partners))
    weights = shift + partner / (own + partner)
    return torch.where(weights > 1, weights - 1, weights)
