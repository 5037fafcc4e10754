"""LOS: label over-smoothing of the classifier's stage (Sun et al., ICLR 2025)."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bench.method import MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.frozen import FrozenBackbone
from methods.parts.weights import weighted_cross_entropy


@register("los", golden=True)
class LOS(FrozenBackbone, CrossEntropy):
    """A trained classifier, trained further with labels smoothed until they are almost uniform.

    The label's target is hardly larger than the others, which makes the logits of all classes similar; class
    counts are not used. The authors' first stage is cross-entropy with a weight decay of 5e-3 on a ResNet-34;
    this one has lr 5e-4 without decay, over 20 epochs of ordinary batches.

    Args:
        smoothing: label smoothing.
    """

    keeps_head = True

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, smoothing: float = 0.98, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.smoothing = smoothing

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return weighted_cross_entropy(outputs, labels, self.class_weights.now, smoothing=self.smoothing)
