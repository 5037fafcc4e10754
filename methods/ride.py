"""RIDE: routing diverse distribution-aware experts (Wang et al., ICLR 2021), without the routing stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import Clock, MakeBackbone
from bench.registry import register
from methods.ldam import LDAM, ldam_loss
from methods.parts.experts import ExpertEnsemble
from methods.parts.weights import DeferredWeights


@register("ride", golden=True, reweight_from=0.8)
class RIDE(ExpertEnsemble, LDAM):
    """Experts on a shared trunk, each trained by LDAM and pushed away from their mean.

    Args:
        diversity: weight of the divergence from the mean, 0.45 on CIFAR; the authors use 0.2 elsewhere.
        reweight_factor: how far the temperature of a class depends on its frequency once the class weights
            apply; 0.05, on ImageNet-LT 0.02, on iNaturalist 0.015.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        diversity: float = 0.45,
        reweight_factor: float = 0.05,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.diversity = diversity
        self.temperature = _DeferredTemperature(self.class_counts, self.class_weights.start, reweight_factor)

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        self.temperature.update(clock)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        weights, temperature = self.class_weights.now, self.temperature.now
        logits = self.scale * outputs
        return ride_loss(logits, labels, self.margins, self.scale, weights, temperature, self.diversity)


class _DeferredTemperature(DeferredWeights):
    """The temperature of each class in the diversity term: 1 until the class weights apply."""

    def __init__(self, class_counts: Tensor, start: float | None, reweight_factor: float) -> None:
        super().__init__(class_counts, start, beta=0.0)
        self.balanced = ride_temperatures(class_counts, reweight_factor)


def ride_temperatures(class_counts: Tensor, reweight_factor: float) -> Tensor:
    """Return r C pi_c + (1 - r), (C,), divided by its maximum; r = `reweight_factor`."""
    share = class_counts.double() / class_counts.sum()
    temperatures = reweight_factor * len(class_counts) * share + (1 - reweight_factor)
    return (temperatures / temperatures.max()).float()


def ride_loss(
    logits: Tensor,
    labels: Tensor,
    margins: Tensor,
    scale: float,
    class_weights: Tensor,
    temperature: Tensor,
    diversity: float,
) -> Tensor:
    """Return sum_k [LDAM(z_k) - diversity mean(T)^2 KL(softmax(mean z / T) || softmax(z_k / T))].

    `logits` (K, B, C) are scaled cosines, T is (C,), and KL is a mean over the batch.
    quirk: the paper sums the divergences of all pairs of experts; the authors' code uses those from the
    experts' mean, without its gradient.
    """
    margin_loss = sum(ldam_loss(z / scale, labels, margins, scale, class_weights) for z in logits)
    mean = F.softmax(logits.detach().mean(dim=0) / temperature, dim=-1)
    own = F.log_softmax(logits / temperature, dim=-1)
    divergence = F.kl_div(own, mean.expand_as(own), reduction="sum") / len(labels)
    return torch.as_tensor(margin_loss) - diversity * temperature.mean() ** 2 * divergence
