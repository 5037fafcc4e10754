"""Logit adjustment in training: balanced softmax and the logit-adjusted loss.

Ren et al., NeurIPS 2020 (balanced softmax); Menon et al., ICLR 2021. With tau = 1 they are one loss up
to a constant in every logit: log n_c against log(n_c / N).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.parts.classifier import Classifier
from methods.parts.weights import log_class_prior, weighted_cross_entropy


@register("balanced_softmax", golden=True)
@register("logit_adjustment", golden=True)
class LogitAdjustment(Classifier):
    """Cross-entropy of the logits plus tau times the log prior; nothing is added at test time.

    Args:
        tau: strength of the adjustment; 1 is Bayes-consistent for the balanced error.
    """

    log_prior: Tensor
    scores = "balanced"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        tau: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.tau = tau
        self.register_buffer("log_prior", log_class_prior(self.class_counts))

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def takes_label_smoothing(self) -> bool:
        return type(self).criterion is LogitAdjustment.criterion

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        adjusted, weights = outputs + self.tau * self.log_prior, self.class_weights.now
        return weighted_cross_entropy(adjusted, labels, weights, smoothing=self.label_smoothing)

    def losses(self, batch: Batch) -> Tensor:
        adjusted = self.head(self.backbone(batch.images)) + self.tau * self.log_prior
        return F.cross_entropy(adjusted, batch.labels, reduction="none", label_smoothing=self.label_smoothing)
