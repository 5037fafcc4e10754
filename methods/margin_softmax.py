"""Margin softmax: the face-recognition losses as classifiers of long-tailed images.

ArcFace (Deng et al., CVPR 2019), CosFace (Wang et al., CVPR 2018), AM-Softmax (Wang et al., IEEE SPL 2018:
CosFace under another name and margin), SphereFace (Liu et al., CVPR 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bench.method import MakeBackbone
from bench.registry import register
from methods.parts.classifier import Classifier
from methods.parts.margin import DEFAULT_SCALE, MarginHead, MarginName
from methods.parts.weights import weighted_cross_entropy


@register("arcface", golden=True, version=2, embedding="same", margin_head="arcface", margin=0.5)
@register("cosface", golden=True, version=2, embedding="same", margin_head="cosface", margin=0.4)
@register("am_softmax", golden=True, version=2, embedding="same", margin_head="cosface", margin=0.35)
@register("sphereface", golden=True, version=2, embedding="same", margin_head="sphereface", margin=4.0)
class MarginSoftmax(Classifier):
    """Cross-entropy of cosines with the same margin for every class at the label.

    It has face recognition's embedding before the head; for a comparison with "ce", give that the same one.

    Args:
        margin_head: which margin: "arcface" (angle), "cosface" (cosine), "sphereface" (multiplied angle).
        margin: in radians, in cosine, or as an integer factor of the angle.
        scale: of the cosines, 30 for tens to thousands of classes (64 in face recognition, which learns
            slowly with few classes); SphereFace has none.
    """

    head: MarginHead

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        margin_head: MarginName = "arcface",
        margin: float = 0.5,
        scale: float = DEFAULT_SCALE,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.head = self.make_margin_head(margin_head, margin, scale)

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def training_outputs(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.head.margin_logits(features, labels)

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return weighted_cross_entropy(outputs, labels, self.class_weights.now)
