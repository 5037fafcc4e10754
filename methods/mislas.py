"""MiSLAS: mixup, then label-aware smoothing with shifted batch norm (Zhong et al., CVPR 2021)."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bench.method import MakeBackbone, Method
from bench.registry import register
from methods.lws import LWS
from methods.mixup import MixupCrossEntropy
from methods.parts.frozen import BatchNorm

Shape = Literal["concave", "linear", "convex"]


@register("mislas_stage_1")
class MiSLASStage1(MixupCrossEntropy):
    """The first stage of MiSLAS: cross-entropy on mixup images, from plain batches.

    The authors' alpha is 1 on CIFAR and 0.2 on ImageNet-LT and iNaturalist.
    """


@register("mislas", golden=True)
class MiSLAS(LWS):
    """The second stage: the classifier, trained further with scales and smoothed labels on a frozen backbone.

    The defaults are the authors' for CIFAR-100 at imbalance factor 100. Their (smooth_head, smooth_tail,
    batch_norm, lr_factor) are, on CIFAR-100 at 50: (0.3, 0, train, 0.1), at 10: (0.2, 0, train,
    0.1); on CIFAR-10 at 100: (0.3, 0, eval, 0.5), at 50: (0.2, 0, eval, 0.2), at 10: (0.1, 0, eval, 0.2);
    on ImageNet-LT and iNaturalist (0.3, 0, train, 0.05).

    Args:
        smooth_head: label smoothing of the most frequent class.
        smooth_tail: label smoothing of the rarest class.
        shape: how smoothing grows with the count between them.
        lr_factor: of the classifier's learning rate; the scales have the full rate.
        batch_norm: of the frozen backbone; "train" is the shifted batch norm, whose statistics adapt to the
            balanced batches.
    """

    usual_parent = "mislas_stage_1"
    smoothing: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        smooth_head: float = 0.4,
        smooth_tail: float = 0.1,
        shape: Shape = "concave",
        lr_factor: float = 0.2,
        batch_norm: BatchNorm = "train",
    ) -> None:
        super().__init__(make_backbone, class_counts, batch_norm=batch_norm)
        self.lr_factor = lr_factor
        smoothing = label_aware_smoothing(self.class_counts, smooth_head, smooth_tail, shape)
        self.register_buffer("smoothing", smoothing)

    def start_from(self, parent: Method) -> None:
        super().start_from(parent)
        self.head.linear.requires_grad_(True)

    def param_groups(self) -> list[dict[str, Any]]:
        classifier = list(self.head.linear.parameters())
        return [{"params": classifier, "lr_factor": self.lr_factor}, {"params": [self.head.scales]}]

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return smoothed_cross_entropy(outputs, labels, self.smoothing)


def label_aware_smoothing(class_counts: Tensor, head: float, tail: float, shape: Shape) -> Tensor:
    """Return the label smoothing of each class, (C,), which grows from `tail` to `head` with its count.

    With r = (n - n_min) / (n_max - n_min), "concave" grows by sin(pi r / 2), "linear" by r, "convex" by
    1 - cos(pi r / 2). If all counts are equal it is `tail`.
    """
    counts = class_counts.clamp(min=1).double()
    rank = (counts - counts.min()) / (counts.max() - counts.min()).clamp(min=1)
    angle = rank * math.pi / 2
    growth = {"concave": angle.sin(), "linear": rank, "convex": 1 - angle.cos()}[shape]
    return (tail + (head - tail) * growth).float()


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:
    """Return the mean of -(1 - e_y) log p_y - e_y mean_c log p_c, with e the smoothing (C,).

    quirk: as in the authors' code, e_y is spread over all classes including y (the paper: all but y).
    """
    log_p = logits.log_softmax(dim=1)
    share = smoothing[labels]
    at_label = log_p.gather(1, labels[:, None])[:, 0]
    return -((1 - share) * at_label + share * log_p.mean(dim=1)).mean()
