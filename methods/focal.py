"""Focal loss (Lin et al., ICCV 2017) in the forms the long-tail literature uses."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.method import MakeBackbone
from bench.registry import register
from methods.parts.classifier import Classifier


@register("focal", golden=True)
@register("cb_focal", golden=True, form="sigmoid", reweight_from=0.0)
@register("cb_sigmoid", golden=True, form="sigmoid", gamma=0.0, reweight_from=0.0)
class Focal(Classifier):
    """Cross-entropy that is reduced for well-classified images by the factor (1 - p)^gamma.

    Args:
        gamma: of the factor; 1 in LDAM-DRW and class-balanced loss, 2 in detection.
        form: "softmax" (LDAM-DRW) or "sigmoid", C one-vs-all terms per image (the paper; class-balanced
            loss). The sigmoid form starts from a bias of -log(C - 1) without weight decay, as in the
            class-balanced paper's code; otherwise the loss starts near C log 2.
        detach: no gradient through the factor (Long-Tailed-Recognition.pytorch, LADE); softmax form.
        ldam_compat: quirk of LDAM-DRW: the class weight enters p, p = exp(-w CE); softmax form.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        gamma: float = 1.0,
        form: Literal["softmax", "sigmoid"] = "softmax",
        detach: bool = False,
        ldam_compat: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.gamma, self.form = gamma, form
        self.detach, self.ldam_compat = detach, ldam_compat
        if form == "sigmoid":
            self.bias.data.fill_(-math.log(max(self.num_classes - 1, 1)))

    def mean_over_images(self) -> bool:
        return self.unweighted() or not self.auxiliary

    def param_groups(self) -> list[dict[str, Any]]:
        if self.form == "softmax":
            return super().param_groups()
        others = [p for p in self.parameters() if p.requires_grad and p is not self.bias]
        return [{"params": others}, {"params": [self.bias], "weight_decay": 0.0}]

    @property
    def bias(self) -> nn.Parameter:
        """The head's bias, (C,)."""
        return self.head.get_parameter("bias")

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        weights = self.class_weights.now
        if self.form == "sigmoid":
            return sigmoid_focal_loss(outputs, labels, weights, self.gamma)
        return softmax_focal_loss(outputs, labels, weights, self.gamma, self.detach, self.ldam_compat)


def softmax_focal_loss(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    gamma: float,
    detach: bool = False,
    ldam_compat: bool = False,
) -> Tensor:
    """Return the batch mean of w_y (1 - p_y)^gamma CE, with p_y the softmax probability."""
    ce = F.cross_entropy(logits, labels, reduction="none")
    weighted = class_weights[labels] * ce
    p = torch.exp(-(weighted if ldam_compat else ce))
    fade = (1 - p).clamp(min=torch.finfo(p.dtype).tiny) ** gamma  # 0^gamma has no gradient below 1
    return ((fade.detach() if detach else fade) * weighted).mean()


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, class_weights: Tensor, gamma: float) -> Tensor:
    """Return sum over classes of -(1 - p_t)^gamma log p_t, weighted by w_y, over the batch size.

    p_t is sigmoid(z) for the label's class and 1 - sigmoid(z) for the others (Cui et al., eq. 13).
    """
    signs = 2 * F.one_hot(labels, logits.shape[1]).to(logits) - 1
    log_p = F.logsigmoid(signs * logits)
    terms = -((1 - log_p.exp()) ** gamma) * log_p if gamma else -log_p
    return (class_weights[labels] * terms.sum(dim=1)).mean()
