"""Remix: rebalanced mixup (Chou et al., ECCV Workshops 2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.ldam import LDAM
from methods.logit_adjustment import LogitAdjustment
from methods.parts.mixing import Mix, Mixup


class Remix(Mixup):
    """Blend as in mixup, but give the rarer of two very unequal classes the whole label.

    Args:
        kappa: the ratio of class counts from which this applies.
        tau: from this weight on the more frequent class keeps its share of the label.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        kappa: float = 3.0,
        tau: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.kappa, self.tau = kappa, tau

    def mix(self, batch: Batch) -> Mix:
        mix = super().mix(batch)
        weights = remix_weights(mix, self.class_counts, self.kappa, self.tau)
        # instead of a weight of 0 or 1 both labels are set to one, so that the batch keeps one weight
        labels = torch.where(weights == 0, mix.partners, mix.labels)
        partners = torch.where(weights == 1, mix.labels, mix.partners)
        return replace(mix, labels=labels, partners=partners)


def remix_weights(mix: Mix, class_counts: Tensor, kappa: float, tau: float) -> Tensor:
    """Return the label weights (B,), eq. 10: 0 if n / n' >= kappa and w < tau, 1 if n / n' <= 1 / kappa
    and 1 - w < tau, else the image's w; n and n' count the classes of label and partner."""
    own, partner = class_counts[mix.labels], class_counts[mix.partners]
    none = (own >= kappa * partner) & (mix.weights < tau)
    whole = (partner >= kappa * own) & (1 - mix.weights < tau)
    return mix.weights.masked_fill(none, 0.0).masked_fill(whole, 1.0)


@register("remix", golden=True)
@register("remix_drw", golden=True, reweight_from=0.8, reduction="batch")
class RemixCrossEntropy(Remix, CrossEntropy):
    """Cross-entropy on blends whose labels favour the rarer class.

    Remix-DRW has imbalanced-DL's reduction: class weights are not divided by their sum over the batch.
    """


@register("remix_ldam_drw", golden=True, reweight_from=0.8)
class RemixLDAM(Remix, LDAM):
    """LDAM on blends whose labels favour the rarer class, with the margin at either label."""


@register("remix_balanced_softmax", golden=True)
class RemixBalancedSoftmax(Remix, LogitAdjustment):
    """Balanced softmax on blends whose labels favour the rarer class (Bag of Tricks, AAAI 2021)."""
