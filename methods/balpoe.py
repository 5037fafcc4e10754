"""BalPoE: a balanced product of experts, calibrated by mixup (Aimar et al., CVPR 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.method import MakeBackbone
from bench.registry import register
from methods.parts.adjusted_experts import AdjustedExperts, adjusted_losses
from methods.parts.mixing import Mixup
from methods.parts.weights import log_class_prior


@register("balpoe", golden=True, width=1.0, alpha=0.4)
class BalPoE(Mixup, AdjustedExperts):
    """Experts trained on mixed images with logit adjustment of different strengths; their mean is balanced.

    mixup's `alpha` is 0.4 on CIFAR-100, 0.8 on CIFAR-10, 0.3 on ImageNet-LT and 0.2 on iNaturalist.

    Args:
        taus: strength of each expert's adjustment: (0, 1, 2) on CIFAR, (0, 1.25, 2.5) on ImageNet-LT,
            (-1, 1, 3) on iNaturalist.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        taus: tuple[float, ...] = (0.0, 1.0, 2.0),
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        if len(taus) != self.backbone.experts:
            raise BenchError(f"balpoe: {len(taus)} taus for {self.backbone.experts} experts; give one each")
        log_prior = log_class_prior(self.class_counts)
        self.register_buffer("adjustments", torch.tensor(taus)[:, None] * log_prior)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return adjusted_losses(outputs, labels, self.adjustments, self.class_weights.now).mean()
