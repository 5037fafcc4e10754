"""LDAM: label-distribution-aware margins (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bench.method import MakeBackbone
from bench.registry import register
from methods.parts.cosines import CosineMargin
from methods.parts.weights import weighted_cross_entropy


@register("ldam", golden=True)
@register("ldam_drw", golden=True, reweight_from=0.8)
class LDAM(CosineMargin):
    """Cross-entropy on scaled cosines with a margin that is largest for the rarest class.

    Args:
        max_margin: margin of the rarest class (RSG's recipes use 0.3).
        scale: of the cosines inside the loss; only in the authors' code.
    """

    margins: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        max_margin: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.register_buffer("margins", ldam_margins(self.class_counts, max_margin))

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return ldam_loss(outputs, labels, self.margins, self.scale, self.class_weights.now)


def ldam_margins(class_counts: Tensor, max_margin: float) -> Tensor:
    """Return m_c proportional to n_c^(-1/4) with a maximum of `max_margin` (eq. 13)."""
    margins = class_counts.clamp(min=1).double() ** -0.25
    return (margins * (max_margin / margins.max())).float()


def ldam_loss(
    cosines: Tensor, labels: Tensor, margins: Tensor, scale: float, class_weights: Tensor
) -> Tensor:
    """Return the class-weighted CE of scale * (cos - m_y at the label only), eq. 11 and 12."""
    margin = F.one_hot(labels, cosines.shape[1]) * margins[labels, None]
    return weighted_cross_entropy(scale * (cosines - margin), labels, class_weights)
