"""Re-sampling: cross-entropy on batches whose classes are drawn more evenly (Kang et al., ICLR 2020)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from bench.method import MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy


@register("class_balanced_sampling", sampling="class_balanced")
@register("sqrt_sampling", sampling="sqrt")
@register("progressive_sampling", sampling="progressive")
class Resampling(CrossEntropy):
    """Cross-entropy with another sampler; the number of steps per epoch stays the same.

    Args:
        sampling: class probabilities: "class_balanced" 1/C, "sqrt" proportional to the square root of
            the count, "progressive" from the counts to 1/C over the epochs.
    """

    mean_over_images = CrossEntropy.mean_over_images

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        sampling: Literal["class_balanced", "sqrt", "progressive"] = "class_balanced",
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.sampling = sampling
        self.scores = "balanced" if sampling != "sqrt" else "train_prior"

    def sampler(self, epoch: int, epochs: int) -> str:
        return self.sampling
