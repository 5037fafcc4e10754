"""H2T: features fused from head to tail while the classifier is re-trained (Li et al., AAAI 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.gcl import GCL
from methods.mislas import MiSLAS
from methods.parts.frozen import FrozenBackbone, load_linear

#: Random numbers that each image brings for the choice of channels: sixteen images bring enough for all.
_SHARE = 16


class FusedFeatures(FrozenBackbone):
    """Let a second stage see images of even classes with some channels of ordinary, mostly common ones.

    Put it before the stage: `class MiSLASH2T(FusedFeatures, MiSLAS)`. Batch norm sees the two kinds of images
    one after the other; the label is that of the even ones.

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
        return False  # pieces of a batch would have channels of their own

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        channels = -(-self.backbone.num_features // _SHARE)
        return super().draws(rng, size) | {"channels": rng.random((size, channels), dtype=np.float32)}

    def loss(self, batch: Batch) -> Tensor:
        return self.loss_of_features(self.fused(batch.images, batch), batch.labels)

    @torch.no_grad()
    def fused(self, images: Tensor, batch: Batch) -> Tensor:
        """Return features (B, D) of images of even classes, some channels being those of `batch.extra`."""
        assert batch.extra is not None
        even, usual = (self.backbone.feature_map(x) for x in (images, batch.extra.images))
        if even.dim() != 4:
            raise BenchError("H2T fuses channels of feature maps; choose a ResNet")
        channels = chosen_channels(batch.draws["channels"], even.shape[1], self.replaced)
        return self.backbone.pool(fuse_channels(even, usual, channels))


@register("dr_h2t", golden=True)
class H2T(FusedFeatures, CrossEntropy):
    """The classifier of a mixup stage, trained further with H2T on class-balanced batches.

    The authors' stage has 10 epochs, cosine, without mixup. Their rates and decays on CIFAR-100: 0.02 and
    5e-4 at imbalance factor 100, 0.02 and 2e-4 at 50 and 200.
    """

    usual_parent = "mixup"

    def start_from(self, parent: Method) -> None:
        super().start_from(parent)
        load_linear(self.head, parent)  # type: ignore[arg-type]


@register("mislas_h2t", golden=True)
class MiSLASH2T(FusedFeatures, MiSLAS):
    """MiSLAS's second stage with H2T."""


@register("gcl_h2t", reconstruction=True, margin=0.1, scale=20.0, batch_norm="eval")
class GCLH2T(FusedFeatures, GCL):
    """GCL's second stage with H2T.

    The authors released no configuration of it. Here all of GCL's stage stays as it is, mixup included, and
    its mixed images take the channels of ordinary ones, which are not mixed.
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
