"""Cross-entropy (ERM), and its class-balanced, cost-sensitive and deferred (DRW) forms.

Class-balanced loss: Cui et al., CVPR 2019. DRW: Cao et al., NeurIPS 2019, section 3.3. Cost-sensitive: by
inverse frequency, as in Bag of Tricks (Zhang et al., AAAI 2021).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.parts.classifier import Classifier
from methods.parts.weights import weighted_cross_entropy


@register("ce", golden=True)
@register("cb_ce", golden=True, reweight_from=0.0)
@register("cs_ce", golden=True, reweight_from=0.0, beta=1.0)
@register("ce_drw", golden=True, reweight_from=0.8)
class CrossEntropy(Classifier):
    """Softmax cross-entropy, with class weights once they apply.

    Args:
        reduction: "weighted_mean" divides by the sum of the batch's weights (PyTorch, LDAM-DRW and
            most re-implementations), "batch" by its size (the class-balanced paper's TensorFlow code).
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        reduction: Literal["weighted_mean", "batch"] = "weighted_mean",
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.reduction = reduction

    def mean_over_images(self) -> bool:
        return self.unweighted() or (self.reduction == "batch" and not self.auxiliary)

    def takes_label_smoothing(self) -> bool:
        return type(self).criterion is CrossEntropy.criterion

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        weights = self.class_weights.now
        return weighted_cross_entropy(outputs, labels, weights, self.reduction, self.label_smoothing)

    def losses(self, batch: Batch) -> Tensor:
        outputs = self.head(self.backbone(batch.images))
        return F.cross_entropy(outputs, batch.labels, reduction="none", label_smoothing=self.label_smoothing)
