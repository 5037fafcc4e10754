"""H2T: fusion of head and tail features while the classifier is re-trained (Li et al., AAAI 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.gcl import GCL
from methods.mislas import MiSLAS
from methods.parts.frozen import FrozenBackbone

#: The images that together draw the random numbers for the choice of channels.
_SHARE = 16


class FusedFeatures(FrozenBackbone):
    """Replace, in a second stage, some channels of class-balanced images by those of ordinary ones.

    Put it before the stage: `class MiSLASH2T(FusedFeatures, MiSLAS)`. Batch norm sees the two batches one
    after the other; the label is the class-balanced image's.

    Args:
        replaced: share of the channels of the last feature maps, one choice for a whole batch.
    """

    extra_sampler = "shuffle"

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, replaced: float = 0.25, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.replaced = replaced

    def sampler(self, epoch: int, epochs: int) -> str:
        return "class_balanced"

    def mean_over_images(self) -> bool:
        return False  # pieces of a batch would choose other channels

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        channels = -(-self.backbone.num_features // _SHARE)
        return super().draws(rng, size) | {"channels": rng.random((size, channels), dtype=np.float32)}

    def loss(self, batch: Batch) -> Tensor:
        return self.loss_of_features(self.fused(batch.images, batch), batch.labels)

    @torch.no_grad()
    def fused(self, images: Tensor, batch: Batch) -> Tensor:
        """Return features (B, D) of images, with some channels of `batch.extra`."""
        assert batch.extra is not None
        balanced, ordinary = (self.backbone.feature_map(x) for x in (images, batch.extra.images))
        if balanced.dim() != 4:
            raise BenchError("H2T fuses channels of feature maps; choose a ResNet")
        channels = chosen_channels(batch.draws["channels"], balanced.shape[1], self.replaced)
        return self.backbone.pool(fuse_channels(balanced, ordinary, channels))


@register("dr_h2t", golden=True)
class H2T(FusedFeatures, CrossEntropy):
    """The classifier of a mixup stage, trained further with H2T on class-balanced batches.

    The authors' stage has 10 epochs, cosine, without mixup. Their rates and decays on CIFAR-100: 0.02 and
    5e-4 at imbalance factor 100, 0.02 and 2e-4 at 50 and 200.
    """

    usual_parent = "mixup"
    keeps_head = True


@register("mislas_h2t", golden=True)
class MiSLASH2T(FusedFeatures, MiSLAS):
    """MiSLAS's second stage with H2T."""


@register("gcl_h2t", reconstruction=True, margin=0.1, scale=20.0, batch_norm="eval")
class GCLH2T(FusedFeatures, GCL):
    """GCL's second stage with H2T.

    The authors released no configuration of it. Here GCL's stage is unchanged, mixup included, and its mixed
    images take channels of ordinary ones, which are not mixed.
    """

    def loss(self, batch: Batch) -> Tensor:
        mix = self.mix(batch)
        return self.clouded_loss(self.fused(mix.images, batch), mix, batch.draws["noise"])


def chosen_channels(numbers: Tensor, channels: int, share: float) -> Tensor:
    """Choose int(share * channels) of the channels at random, by numbers (B, n) drawn uniformly."""
    keys = numbers.flatten()
    keys = keys.repeat(-(-channels // len(keys)))[:channels]
    return keys.argsort()[: int(share * channels)]


def fuse_channels(maps: Tensor, others: Tensor, channels: Tensor) -> Tensor:
    """Return maps (B, D, h, w) whose `channels` are those of the others."""
    taken = torch.zeros(maps.shape[1], dtype=torch.bool, device=maps.device).index_fill(0, channels, True)
    return torch.where(taken[:, None, None], others, maps)
