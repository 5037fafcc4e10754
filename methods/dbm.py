"""DBM: a difficulty-aware angular margin (Son et al., AAAI 2025), plugged into other losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.bcl import BCL
from methods.cross_entropy import CrossEntropy
from methods.logit_adjustment import LogitAdjustment
from methods.ncl import NCL, ncl_loss
from methods.parts.classifier import Classifier
from methods.parts.heads import CosineHead

#: The authors' constants: margin of the rarest class, power of the frequency, and share of the angle.
MARGIN, POWER, BY_ANGLE = 0.1, 1.0, 1.0
SCALE = 32.0


class DBM(Classifier):
    """Turn a classifier into one on scaled cosines with DBM's margin; put it before the classifier.

    Args:
        max_margin: angle added for the rarest class.
        power: how fast it falls with a class's frequency.
        by_angle: how much of it a wrongly classified image has on top, by its angle.
        scale: of the cosines: 32, on ImageNet-LT and iNaturalist 30.
    """

    margins: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        max_margin: float = MARGIN,
        power: float = POWER,
        by_angle: float = BY_ANGLE,
        scale: float = SCALE,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.scale, self.by_angle = scale, by_angle
        self.register_buffer("margins", dbm_margins(self.class_counts, max_margin, power))

    def make_head(self, features: int, classes: int) -> nn.Module:
        return CosineHead(features, classes)

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def training_outputs(self, features: Tensor, labels: Tensor) -> Tensor:
        return dbm_logits(self.head(features), labels, self.margins, self.scale, self.by_angle)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * super().forward(images)


@register("dbm_ce", golden=True)
@register("dbm_drw", golden=True, reweight_from=0.8)
class DBMCrossEntropy(DBM, CrossEntropy):
    """Cross-entropy of scaled cosines with a margin for rare classes and for images that are wrong."""

    def mean_over_images(self) -> bool:
        return super().mean_over_images()


@register("dbm_bs", golden=True)
class DBMBalancedSoftmax(DBM, LogitAdjustment):
    """Balanced softmax of scaled cosines with a margin for rare classes and for images that are wrong."""

    def mean_over_images(self) -> bool:
        return super().mean_over_images()


@register("dbm_bcl", scale=SCALE)
class DBMBCL(BCL):
    """BCL whose classifier has DBM's margin.

    Args:
        max_margin: see "dbm_ce".
        power: see "dbm_ce".
        by_angle: see "dbm_ce".
    """

    head: CosineHead
    margins: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        max_margin: float = MARGIN,
        power: float = POWER,
        by_angle: float = BY_ANGLE,
        **more: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **more)
        if not isinstance(self.head, CosineHead):
            raise BenchError("dbm_bcl: its margin is one of cosines; leave classifier: linear out")
        self.by_angle = by_angle
        self.register_buffer("margins", dbm_margins(self.class_counts, max_margin, power))

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        scale = self.head.scale
        return dbm_logits(self.head(features) / scale, labels, self.margins, scale, self.by_angle)


@register("dbm_ncl", version=2)
class DBMNCL(NCL):
    """NCL on cosine heads with DBM's margin, each network by its own mistakes.

    Args:
        max_margin: see "dbm_ce".
        power: see "dbm_ce".
        by_angle: see "dbm_ce".
        scale: see "dbm_ce".
    """

    margins: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        max_margin: float = MARGIN,
        power: float = POWER,
        by_angle: float = BY_ANGLE,
        scale: float = SCALE,
        **more: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **more)
        self.scale, self.by_angle = scale, by_angle
        for network in self.networks:
            assert isinstance(network, nn.Sequential)
            assert isinstance(network[0], Backbone)
            network[1] = CosineHead(network[0].num_features, self.num_classes)
        self.register_buffer("margins", dbm_margins(self.class_counts, max_margin, power))

    def mean_over_images(self) -> bool:
        return super().mean_over_images()

    def loss(self, batch: Batch) -> Tensor:
        margined = [
            dbm_logits(cosines, batch.labels, self.margins, self.scale, self.by_angle)
            for cosines in self.logits(batch.images)
        ]
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

    m = m_y (1 + by_angle (1 - u_y) / 2 if the image is wrong); the last factor has a gradient. quirk: an
    angle may pass pi, where the cosine rises again. Cosines are held off +-1, where arccos has no slope.
    """
    held = cosines.clamp(-1 + 1e-7, 1 - 1e-7)
    own = held.gather(1, labels[:, None])
    wrong = (cosines.argmax(dim=1) != labels)[:, None]
    margin = margins[labels][:, None] * (1 + by_angle * wrong * (1 - own) / 2)
    return scale * torch.where(
        F.one_hot(labels, cosines.shape[1]).bool(), (own.arccos() + margin).cos(), cosines
    )
