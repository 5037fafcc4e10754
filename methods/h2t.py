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
        assert batch.extra is not None
        with torch.no_grad():
            even, usual = (self.backbone.feature_map(b.images) for b in (batch, batch.extra))
            if even.dim() != 4:
                raise BenchError("H2T fuses channels of feature maps; choose a ResNet")
            channels = chosen_channels(batch.draws["channels"], even.shape[1], self.replaced)
            features = self.backbone.pool(fuse_channels(even, usual, channels))
        return self.loss_of_features(features, batch.labels)


@register("dr_h2t", golden=True)
class H2T(FusedFeatures, CrossEntropy):
    """The classifier of a mixup stage goes on, with H2T, from class-balanced batches.

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


def chosen_channels(numbers: Tensor, channels: int, share: float) -> Tensor:
    """Choose int(share * channels) of the channels at random, by numbers (B, n) drawn uniformly."""
    keys = numbers.flatten()
    keys = keys.repeat(-(-channels // len(keys)))[:channels]
    return keys.argsort()[: int(share * channels)]


def fuse_channels(maps: Tensor, others: Tensor, channels: Tensor) -> Tensor:
    """Return maps (B, D, h, w) whose `channels` are those of the others."""
    taken = torch.zeros(maps.shape[1], dtype=torch.bool, device=maps.device).index_fill(0, channels, True)
    return torch.where(taken[:, None, None], others, maps)
