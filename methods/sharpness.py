"""Flat minima for rare classes: SAM, and its long-tailed forms ImbSAM, Focal-SAM and SAM-A.

What a step does is `bench.train.displaced`'s; here is which form each is known under, and on which loss. Any
other method takes `protocol.optimizer.sharpness`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bench.cell import Sharpness
from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.logit_adjustment import LogitAdjustment


@register("ce_sam", golden=True)
class SAM(CrossEntropy):
    """Cross-entropy, its gradient taken where the loss is highest within a small distance.

    Args:
        rho: that distance.
        adaptive: measured relative to each weight's size (ASAM).
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.sharpness = Sharpness(form="sam", rho=rho, adaptive=adaptive)

    def mean_over_images(self) -> bool:
        return super().mean_over_images()


@register("imbsam", golden=True)
class ImbSAM(CrossEntropy):
    """Cross-entropy, with SAM's climb and descent for the images of rare classes alone.

    The authors give eta for CIFAR-100 at imbalance factor 100 only; on CIFAR-10 no class is below it there,
    so nothing climbs. quirk: their code counts tail images twice, see `bench.train.displaced`.

    Args:
        rho: length of the climb.
        eta: classes of fewer images are rare.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        rho: float = 0.05,
        eta: int = 20,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.sharpness = Sharpness(form="imbsam", rho=rho, eta=eta)

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def losses(self, batch: Batch) -> Tensor:
        return super().losses(batch)


@register("sam_a", golden=True)
class SAMA(CrossEntropy):
    """Cross-entropy, with SAM's climb along the loss weighted by n_max / n_c.

    quirk: the paper speaks of a longer climb for rare classes; in the authors' code the weights turn it, and
    its length is one for all.

    Args:
        rho: length of the climb.
    """

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, rho: float = 0.05, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.sharpness = Sharpness(form="sam_a", rho=rho)

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def losses(self, batch: Batch) -> Tensor:
        return super().losses(batch)


@register("focal_sam", golden=True)
class FocalSAM(LogitAdjustment):
    """The logit-adjusted loss, climbed the further for a class the rarer it is.

    The defaults are the authors' for CIFAR-10. As (rho, gamma, strength) theirs are (0.3, 3.2, 0.8) on
    CIFAR-100; on ImageNet-LT (0.1, then 0.2 after 80 % of the epochs, 0.8, 0.8), on iNaturalist
    (0.2, 2, 1.1): the change of rho is not built.

    Args:
        rho: length of the climb.
        gamma: how fast a class's share of the climb falls with its frequency.
        strength: that share of a class without images.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        rho: float = 0.2,
        gamma: float = 3.0,
        strength: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.sharpness = Sharpness(form="focal_sam", rho=rho, gamma=gamma, strength=strength)

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def losses(self, batch: Batch) -> Tensor:
        return super().losses(batch)
