"""VS: the vector-scaling loss (Kini et al., NeurIPS 2021), and CDT, its multiplicative half."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bench.method import MakeBackbone
from bench.registry import register
from methods.logit_adjustment import LogitAdjustment
from methods.parts.weights import weighted_cross_entropy


@register("vs", golden=True, tau=0.75)
@register("cdt", golden=True, gamma=0.2, tau=0.0)
@register("cdt_drw", golden=True, gamma=0.2, tau=0.0, reweight_from=0.8)
class VectorScaling(LogitAdjustment):
    """Cross-entropy of logits divided by a temperature of their class, plus tau times the log prior.

    The paper's (gamma, tau) at imbalance factor 100 are (0.05, 0.75) for CIFAR-100-LT, the default, and
    (0.15, 1.25) for CIFAR-10-LT. CDT's gamma is that of Bag of Tricks.

    Args:
        gamma: power of n_max / n_c in the temperature.
    """

    temperatures: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        gamma: float = 0.05,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.register_buffer("temperatures", class_temperatures(self.class_counts, gamma))

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        scaled = vs_logits(outputs, self.temperatures, self.tau * self.log_prior)
        return weighted_cross_entropy(scaled, labels, self.class_weights.now)


def class_temperatures(class_counts: Tensor, gamma: float) -> Tensor:
    """Return Delta_c = (n_max / n_c)^gamma, (C,): 1 for the most frequent class, more for the others."""
    counts = class_counts.clamp(min=1).double()
    return ((counts.max() / counts) ** gamma).float()


def vs_logits(logits: Tensor, temperatures: Tensor, shifts: Tensor) -> Tensor:
    """Return z_c / Delta_c + iota_c, whose cross-entropy is the loss (the paper's Delta is one over this)."""
    return logits / temperatures + shifts
