"""DBM: a difficulty-aware angular margin (Son et al., AAAI 2025), combined with other losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from methods.bcl import BCL
from methods.cross_entropy import CrossEntropy
from methods.logit_adjustment import LogitAdjustment
from methods.ncl import NCL, ncl_loss
from methods.parts.cosines import CosineMargin
from methods.parts.heads import CosineHead

#: Of the cosines.
SCALE = 32.0


class DBM(Method):
    """Add DBM's margin to a method with cosines; put it before that method.

    Args:
        max_margin: angle added for the rarest class.
        power: how fast it falls with a class's frequency.
        by_angle: how much it grows, by the angle, for an image that is classified wrongly.
    """

    margins: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        max_margin: float = 0.1,
        power: float = 1.0,
        by_angle: float = 1.0,
        **more: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **more)
        self.by_angle = by_angle
        self.register_buffer("margins", dbm_margins(self.class_counts, max_margin, power))

    def margined(self, cosines: Tensor, labels: Tensor, scale: float) -> Tensor:
        """Return logits (B, C): scaled cosines with the margin at the label."""
        return dbm_logits(cosines, labels, self.margins, scale, self.by_angle)


class DBMClassifier(DBM, CosineMargin):
    """Turn a classifier into one on scaled cosines with DBM's margin; put it before the classifier.

    Args:
        scale: of the cosines: 32, on ImageNet-LT and iNaturalist 30.
    """

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def training_outputs(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.margined(self.head(features), labels, self.scale)


@register("dbm_ce", golden=True, scale=SCALE)
@register("dbm_drw", golden=True, scale=SCALE, reweight_from=0.8)
class DBMCrossEntropy(DBMClassifier, CrossEntropy):
    """Cross-entropy of scaled cosines with a margin for rare classes and for misclassified images."""

    mean_over_images = DBMClassifier.mean_over_images


@register("dbm_bs", golden=True, scale=SCALE)
class DBMBalancedSoftmax(DBMClassifier, LogitAdjustment):
    """Balanced softmax of scaled cosines with a margin for rare classes and for misclassified images."""

    mean_over_images = DBMClassifier.mean_over_images


@register("dbm_bcl", scale=SCALE)
class DBMBCL(DBM, BCL):
    """BCL whose classifier has DBM's margin."""

    head: CosineHead

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray, **more: Any) -> None:
        super().__init__(make_backbone, class_counts, **more)
        if not isinstance(self.head, CosineHead):
            raise BenchError("dbm_bcl: its margin is one of cosines; leave classifier: linear out")

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        scale = self.head.scale
        return self.margined(self.head(features) / scale, labels, scale)


@register("dbm_ncl", version=2)
class DBMNCL(DBM, NCL):
    """NCL on cosine heads with DBM's margin, which grows by each network's own mistakes.

    Args:
        scale: of the cosines.
    """

    mean_over_images = NCL.mean_over_images

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, scale: float = SCALE, **more: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **more)
        self.scale = scale
        for network in self.networks:
            assert isinstance(network, nn.Sequential)
            assert isinstance(network[0], Backbone)
            network[1] = CosineHead(network[0].num_features, self.num_classes)

    def loss(self, batch: Batch) -> Tensor:
        margined = [self.margined(c, batch.labels, self.scale) for c in self.logits(batch.images)]
        logits = torch.stack(margined)
        return ncl_loss(logits, batch.labels, self.log_counts, self.hard_classes, self.diversity)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * super().forward(images)


def dbm_margins(class_counts: Tensor, max_margin: float, power: float) -> Tensor:
    """Return the angle of each class, max_margin (n_min / n_c)^power, (C,)."""
    counts = class_counts.clamp(min=1).double()
    return (max_margin * (counts.min() / counts) ** power).float()


def dbm_logits(cosines: Tensor, labels: Tensor, margins: Tensor, scale: float, by_angle: float) -> Tensor:
    """Return scale * cos(arccos u_y + m) at the label, scale * u elsewhere, for cosines (B, C).

    m = m_y (1 + by_angle (1 - u_y) / 2 if the image is misclassified), with a gradient through u_y. quirk: an
    angle may exceed pi, where the cosine rises again. Cosines are clamped below +-1, where arccos has no
    gradient.
    """
    held = cosines.clamp(-1 + 1e-7, 1 - 1e-7)
    own = held.gather(1, labels[:, None])
    wrong = (cosines.argmax(dim=1) != labels)[:, None]
    margin = margins[labels][:, None] * (1 + by_angle * wrong * (1 - own) / 2)
    return scale * torch.where(
        F.one_hot(labels, cosines.shape[1]).bool(), (own.arccos() + margin).cos(), cosines
    )
