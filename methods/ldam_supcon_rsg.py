"""The combination of the mini-ImageNet-LT collection: LDAM + SupCon + RSG, with optional margin heads.

"Optimizing Accuracy for Image Classification under Long-tail Distribution", a public collection of
re-implementations on a ResNeXt-50; its weights and margins are kept. Its code for the two views and the
projection was not readable, so these are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.method import Batch, MakeBackbone, View
from bench.registry import register
from methods.parts.projector import Projector
from methods.rsg import RSGMethod
from methods.supcon import supcon_loss


@register(
    "ldam_supcon_rsg", reconstruction=True, max_margin=0.3, resample=True, centers=3, contrast_width=128
)
class LDAMSupConRSG(RSGMethod):
    """LDAM on batches enlarged by RSG, supervised contrast of two views, and optional margin heads.

    The collection's default run never generates (its threshold is after its last epoch); `generate_from` 1 is
    that run. Margin heads are added by `auxiliary`, at full weight as in the collection.

    Args:
        ldam_weight: of LDAM.
        contrast_weight: of the supervised contrast.
        temperature: of the similarities.
        hidden: width inside the projector.
        dim: of the projections.
    """

    views = (View("main"), View("main"))

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        ldam_weight: float = 0.1,
        contrast_weight: float = 0.9,
        temperature: float = 0.1,
        hidden: int = 512,
        dim: int = 128,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.ldam_weight, self.contrast_weight, self.temperature = ldam_weight, contrast_weight, temperature
        self.projector = Projector(self.backbone.num_features, hidden, dim)

    def loss(self, batch: Batch) -> Tensor:
        views, images = len(batch.views), len(batch.labels)
        features, labels, cesc, mv = self.enlarged(torch.cat(batch.views), batch.labels.repeat(views))
        ldam = self.criterion(self.training_outputs(features, labels), labels)
        projections = self.projector(features[: views * images]).view(views, images, -1)
        contrast = supcon_loss(projections, batch.labels, self.temperature, self.temperature)
        return (
            self.ldam_weight * ldam
            + self.contrast_weight * contrast
            + self.auxiliary_loss(features, labels)
            + (self.cesc_weight * cesc + self.mv_weight * mv)
        )
