"""Classifiers on scaled cosines: of features to one vector per class."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from bench.method import MakeBackbone
from methods.parts.classifier import Classifier
from methods.parts.heads import CosineHead


class CosineClassifier(Classifier):
    """Turn a classifier into one on scaled cosines; put it before the classifier.

    Args:
        scale: of the cosines.
    """

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, scale: float = 30.0, **common: Any
    ) -> None:
        self.scale = scale  # read by `make_head`
        super().__init__(make_backbone, class_counts, **common)

    def make_head(self, features: int, classes: int) -> nn.Module:
        return CosineHead(features, classes, self.scale)


class CosineMargin(Classifier):
    """Turn a classifier into one whose criterion sees cosines, to which margins apply; it scales them itself.

    At test the logits are scaled as in training: calibration and later adjustment depend on it.

    Args:
        scale: of the cosines.
    """

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, scale: float = 30.0, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.scale = scale

    def make_head(self, features: int, classes: int) -> nn.Module:
        return CosineHead(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * super().forward(images)
