"""SURE: a combination of techniques for reliable networks, as used on long tails (Li et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cell import Sharpness
from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.cosines import CosineClassifier
from methods.parts.frozen import load_backbone
from methods.parts.mixing import Mixup


@register("sure", golden=True, alpha=10.0, scale=8.0)
class SURE(Mixup, CosineClassifier, CrossEntropy):
    """Cross-entropy of plain and of mixed images on a cosine classifier, with SAM.

    Its weight averaging is set in the protocol: `averaging: {kind: swa, start: 0.6}`. The ranking of
    confidences has weight 0 in the authors' scripts for CIFAR-LT, and is left out. Their ResNet-32 is four
    times as wide (`width: 4`). quirk: in their code SAM's two passes have different mixes; here they share
    one.

    Args:
        mix_weight: of the mixed images' loss.
        scale: of the cosines.
        rho: length of SAM's climb.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        mix_weight: float = 1.0,
        rho: float = 0.05,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.mix_weight = mix_weight
        self.sharpness = Sharpness(form="sam", rho=rho)

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        plain = self.loss_of_features(self.backbone(batch.images), batch.labels)
        mixed = mix.weigh(partial(self.loss_of_features, self.backbone(mix.images)))
        return plain + self.mix_weight * mixed


@register("sure_re_weighting", scale=8.0)
class SUREReweighted(CosineClassifier, CrossEntropy):
    """A trained SURE, trained further with images weighted by low confidence and fixed batch norm.

    The authors' stage has 50 epochs at lr 0.005 on CIFAR-100 at imbalance factor 100. quirk left out: their
    second SAM pass is unweighted; here there is no second pass.

    Args:
        sharpen: weights are exp(-sharpen * confidence), scaled to a mean of 1.
        scale: of the cosines.
    """

    needs_parent = True
    usual_parent = "sure"
    image_weights: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        sharpen: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.sharpen = sharpen
        self.register_buffer("image_weights", torch.ones(int(self.class_counts.sum())))

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, SURE):
            raise BenchError(f"sure_re_weighting starts from sure, not from {type(parent).__name__}")
        load_backbone(self.backbone, parent)
        self.head.load_state_dict(parent.head.state_dict())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @torch.no_grad()
    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.eval()
        confidence = torch.cat(
            [self(images).float().softmax(dim=1).amax(dim=1) for images, _ in training_set]
        )
        weights = (-self.sharpen * confidence).exp()
        self.image_weights[: len(confidence)] = (weights / weights.mean()).clamp(1e-4, 1)

    def mean_over_images(self) -> bool:
        return not self.auxiliary

    def loss(self, batch: Batch) -> Tensor:
        outputs = self.head(self.backbone(batch.images))
        losses = F.cross_entropy(outputs, batch.labels, reduction="none")
        return (self.image_weights[batch.positions] * losses).mean()

    def takes_label_smoothing(self) -> bool:
        return False
