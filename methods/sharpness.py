"""Flat minima for rare classes: SAM, and its long-tailed forms ImbSAM, Focal-SAM and SAM-A.

The steps are in `bench.train.displaced`; here are the forms and the losses of the published methods. Any
other method takes `protocol.optimizer.sharpness`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.cell import Sharpness
from bench.method import MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.logit_adjustment import LogitAdjustment


@register("ce_sam", golden=True)
class SAM(CrossEntropy):
    """Cross-entropy, with the gradient where the loss is highest within a small distance.

    Args:
        rho: that distance.
        adaptive: measure it relative to each weight's size (ASAM).
    """

    mean_over_images = CrossEntropy.mean_over_images

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


@register("imbsam", golden=True)
class ImbSAM(CrossEntropy):
    """Cross-entropy, with SAM's climb and descent only for the images of rare classes.

    The authors give eta only for CIFAR-100 at imbalance factor 100; on CIFAR-10 no class is below it there,
    so there is no climb. quirk: their code counts tail images twice, see `bench.train.displaced`.

    Args:
        rho: length of the climb.
        eta: classes with fewer images are rare.
    """

    losses = CrossEntropy.losses

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


@register("sam_a", golden=True)
class SAMA(CrossEntropy):
    """Cross-entropy, with SAM's climb along the loss weighted by n_max / n_c.

    quirk: the paper describes a longer climb for rare classes; in the authors' code the weights change only
    its direction.

    Args:
        rho: length of the climb.
    """

    losses = CrossEntropy.losses

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, rho: float = 0.05, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.sharpness = Sharpness(form="sam_a", rho=rho)

    def mean_over_images(self) -> bool:
        return self.unweighted()


@register("focal_sam", golden=True)
class FocalSAM(LogitAdjustment):
    """The logit-adjusted loss, with SAM's climb weighted towards rare classes.

    The defaults are the authors' for CIFAR-10. Their (rho, gamma, strength) are (0.3, 3.2, 0.8) on CIFAR-100,
    (0.1, then 0.2 after 80 % of the epochs, 0.8, 0.8) on ImageNet-LT and (0.2, 2, 1.1) on iNaturalist; the
    change of rho is not implemented.

    Args:
        rho: length of the climb.
        gamma: how fast a class's weight in the climb falls with its frequency.
        strength: the weight of a class without images.
    """

    losses = LogitAdjustment.losses

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
