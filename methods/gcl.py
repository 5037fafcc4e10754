"""GCL: Gaussian clouded logit adjustment (Li et al., CVPR 2022), its two stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from methods.focal import softmax_focal_loss
from methods.parts.cosines import CosineMargin
from methods.parts.frozen import FrozenBackbone
from methods.parts.mixing import Mix, Mixup
from methods.parts.weights import weighted_cross_entropy


@register("gcl_stage_1", golden=True)
class GCLStage1(Mixup, CosineMargin):
    """Cross-entropy on scaled cosines with noise that is largest for the rarest class, with mixup.

    quirk: the authors' code subtracts the noise from every class's cosine, not only the label's, and draws it
    again for the second label of a mix; here both labels share one draw, which has the same expected loss.

    Args:
        noise: amplitude, in cosines, for the rarest class.
        margin: subtracted at the label, the same for all classes.
        scale: of the cosines inside the loss.
    """

    scores = "balanced"
    cloud: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        noise: float = 0.5,
        margin: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.margin = margin
        self.register_buffer("cloud", noise * cloud_sizes(self.class_counts))

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        noise = rng.standard_normal((size, self.num_classes), dtype=np.float32) / 3
        return super().draws(rng, size) | {"noise": noise}

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        return self.clouded_loss(self.backbone(mix.images), mix, batch.draws["noise"])

    def clouded_loss(self, features: Tensor, mix: Mix, noise: Tensor) -> Tensor:
        """Return the loss of mixed images' features (B, D) with noise (B, C), for both labels."""
        clouded = clouded_cosines(self.head(features), noise, self.cloud)
        return mix.weigh(
            lambda labels: self.criterion(clouded, labels) + self.auxiliary_loss(features, labels)
        )

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        logits = margin_logits(outputs, labels, self.margin, self.scale)
        return weighted_cross_entropy(logits, labels, self.class_weights.now)


@register("gcl", margin=0.1, scale=20.0, batch_norm="eval")
class GCL(FrozenBackbone, GCLStage1):
    """The classifier of GCL's first stage, trained further on class-balanced batches with mixup.

    Args:
        gamma: of the focal factor, whose gradient is detached.
    """

    usual_parent = "gcl_stage_1"

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, gamma: float = 1.0, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.gamma = gamma

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, GCLStage1):
            raise BenchError(f"gcl starts from gcl_stage_1, not from {type(parent).__name__}")
        super().start_from(parent)
        self.head.load_state_dict(parent.head.state_dict())

    def sampler(self, epoch: int, epochs: int) -> str:
        return "class_balanced"

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        logits = margin_logits(outputs, labels, self.margin, self.scale)
        return softmax_focal_loss(logits, labels, self.class_weights.now, self.gamma, detach=True)


def cloud_sizes(class_counts: Tensor) -> Tensor:
    """Return (log n_max - log n_c) over its maximum, (C,): 1 for the rarest class."""
    logs = class_counts.clamp(min=1).double().log()
    sizes = logs.max() - logs
    return (sizes / sizes.max().clamp(min=1e-12)).float()


def clouded_cosines(cosines: Tensor, noise: Tensor, cloud: Tensor) -> Tensor:
    """Return cos_c - |eps_c| cloud_c for cosines and noise (B, C), the noise clamped to [-1, 1]."""
    return cosines - noise.abs().clamp(max=1) * cloud


def margin_logits(cosines: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Return scale * (cos - margin at the label only)."""
    return scale * (cosines - margin * F.one_hot(labels, cosines.shape[1]))
