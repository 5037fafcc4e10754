"""SADE: experts for three class distributions (Zhang et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.method import MakeBackbone
from bench.registry import register
from methods.parts.adjusted_experts import AdjustedExperts, adjusted_losses
from methods.parts.weights import log_class_prior


@register("sade", golden=True)
class SADE(AdjustedExperts):
    """Three experts, for the long-tailed, the uniform and the inversely long-tailed distribution.

    The logits are the mean of the experts, as for a uniform test set. On the test-agnostic track it also has
    the paper's weights, learnt from unlabelled test images.

    Args:
        tau: strength of the third expert's adjustment to the tail; 2, on iNaturalist 1.
    """

    adapts = True
    test_views = "crop_flip_simclr_blur"

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, tau: float = 2.0, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        if self.backbone.experts != 3:
            raise BenchError(f"sade has three experts, got experts: {self.backbone.experts}; leave it out")
        self.register_buffer("adjustments", sade_adjustments(self.class_counts, tau))

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return adjusted_losses(outputs, labels, self.adjustments, self.class_weights.now).sum()


def sade_adjustments(class_counts: Tensor, tau: float) -> Tensor:
    """Return 0, log pi and log pi - tau log pi', (3, C), where pi' is the prior with ranks reversed."""
    log_prior = log_class_prior(class_counts)
    rising, order = log_prior.sort(stable=True)
    log_inverse = torch.empty_like(log_prior).scatter(0, order, rising.flip(0))
    return torch.stack([torch.zeros_like(log_prior), log_prior, log_prior - tau * log_inverse])
