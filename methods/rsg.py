"""RSG: a Rare-class Sample Generator inside the network (Wang et al., CVPR 2021).

Between two late stages it takes what varies among head-class feature maps and adds it to tail-class
ones, so the stages behind it see more tail images. It is dropped at test time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Batch, Clock, MakeBackbone
from bench.registry import register
from methods.ldam import LDAM


@register("rsg", golden=True, version=2, reweight_from=0.8)
class RSGMethod(LDAM):
    """LDAM-DRW on a batch that the generator enlarges by tail-class feature maps.

    The defaults are the authors' for CIFAR. On ImageNet-LT, as in the mini-ImageNet-LT collection, the margin
    is 0.3, and batches are re-sampled instead of re-weighted (`resample` true, `reweight_from` null).

    Args:
        generate_from: share of the epochs after which maps are generated; 0.8 is epoch 160 of 200. At 1
            nothing is ever generated.
        resample: whether batches are drawn by effective numbers from then on.
        head_share: share of the classes, by count, that variation is taken from.
        centers: feature centres of each class.
        contrast_width: channels of the module that tells whether two maps are of one class.
        strength: how many maps are generated, as a share of the head-class maps of a batch.
        cesc_weight: of the centre-estimation and sample-contrast loss.
        mv_weight: of the maximised-vector loss.
    """

    capturable = False  # how many maps are generated depends on the batch
    generating: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        generate_from: float = 0.8,
        resample: bool = False,
        head_share: float = 0.2,
        centers: int = 15,
        contrast_width: int = 256,
        strength: float = 1.0,
        cesc_weight: float = 0.1,
        mv_weight: float = 0.01,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.generate_from, self.resample, self.strength = generate_from, resample, strength
        self.cesc_weight, self.mv_weight = cesc_weight, mv_weight
        if len(self.backbone.stage_names) < 2:
            raise BenchError("rsg stands between the last stages of a backbone; choose a ResNet")
        self.after = self.backbone.stage_names[-2]
        channels = _output_channels(self.backbone.split(self.after)[0])
        self.generator = Generator(self.num_classes, channels, centers, contrast_width)
        heads = max(1, round(head_share * self.num_classes))
        is_head = torch.zeros(self.num_classes, dtype=torch.bool)
        is_head[self.class_counts.argsort(descending=True, stable=True)[:heads]] = True
        self.register_buffer("is_head", is_head)
        self.register_buffer("generating", torch.tensor(False))

    def sampler(self, epoch: int, epochs: int) -> str:
        late = epoch >= round(self.generate_from * epochs)
        return "effective_number" if late and self.resample else "shuffle"

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        self.generating.fill_(clock.epoch >= round(self.generate_from * clock.epochs))
        self.generator.contrast.requires_grad_(not self.generating)

    def loss(self, batch: Batch) -> Tensor:
        features, labels, generator_loss = self.enlarged(batch.images, batch.labels)
        return self.loss_of_features(features, labels) + generator_loss

    def enlarged(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features and labels, generated ones behind the images' own, and the weighted losses."""
        trunk, rest = self.backbone.split(self.after)
        made = self.generator(
            trunk.feature_map(images), labels, self.is_head, bool(self.generating), self.strength
        )
        losses = self.cesc_weight * made.cesc + self.mv_weight * made.mv
        return rest(made.maps), made.labels, losses


def _output_channels(trunk: nn.Module) -> int:
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    return norms[-1].num_features


class Made:
    """A batch's maps with generated ones appended, their labels, and the generator's two losses."""

    def __init__(self, maps: Tensor, labels: Tensor, cesc: Tensor, mv: Tensor) -> None:
        self.maps, self.labels, self.cesc, self.mv = maps, labels, cesc, mv


class Generator(nn.Module):
    """The module itself: class centres with a soft gate, a transformation, and a pair classifier."""

    def __init__(self, classes: int, channels: int, centers: int, contrast_width: int) -> None:
        super().__init__()
        self.gate_weight = nn.Parameter(torch.randn(classes, channels, centers))
        self.gate_bias = nn.Parameter(torch.ones(classes, centers))
        self.centers = nn.Parameter(torch.zeros(classes, centers, channels))
        self.transform = _conv(channels, channels, 3)
        same_or_not = nn.Linear(contrast_width, 2)
        nn.init.normal_(same_or_not.weight)
        nn.init.zeros_(same_or_not.bias)
        self.contrast = nn.Sequential(
            _conv(2 * channels, contrast_width, 1),
            nn.ReLU(),
            _conv(contrast_width, contrast_width, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            same_or_not,
        )

    def forward(
        self, maps: Tensor, labels: Tensor, is_head: Tensor, generating: bool, strength: float
    ) -> Made:
        """Estimate the centres from maps (B, C, H, W), and once `generating`, append tail-class maps.

        The generator sees the maps detached: the trunk learns from the task alone.
        """
        seen = maps.detach()
        gates = self._gates(seen, labels)
        cesc = self._center_loss(seen, labels, gates)
        zero = maps.new_zeros(())
        if not generating:
            return Made(maps, labels, cesc + self._contrast_loss(seen, labels), zero)
        head, tail = is_head[labels], ~is_head[labels]
        pairs = _pairs(head.nonzero()[:, 0], tail.nonzero()[:, 0], strength)
        if not pairs:
            return Made(maps, labels, cesc, zero)
        nearest = self.centers.detach()[labels, gates.argmax(dim=1)][:, :, None, None]
        varied = seen - nearest  # what a map has beside its class's centre
        generated, losses = [], []
        for heads, tails in pairs:
            moved = self.transform(varied[heads])
            generated.append(seen[tails] + moved)
            losses.append(self._vector_loss(seen[heads], varied[heads], moved, varied[tails]))
        rows = torch.cat([tails for _, tails in pairs])
        return Made(
            torch.cat([maps, *generated]),
            torch.cat([labels, labels[rows]]),
            cesc,
            torch.stack(losses).mean(),
        )

    def _gates(self, maps: Tensor, labels: Tensor) -> Tensor:
        pooled = maps.mean(dim=(2, 3))
        scores = torch.einsum("bc,bck->bk", pooled, self.gate_weight[labels]) + self.gate_bias[labels]
        return scores.softmax(dim=1)

    def _center_loss(self, maps: Tensor, labels: Tensor, gates: Tensor) -> Tensor:
        offsets = maps[:, None] - self.centers[labels][:, :, :, None, None]  # (B, K, C, H, W)
        return (gates * offsets.square().sum(dim=(2, 3, 4))).sum() / len(maps)

    def _contrast_loss(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return the CE of telling whether the i-th maps of both halves are of one class."""
        half = len(maps) // 2  # an odd batch leaves one out
        if not half:
            return maps.new_zeros(())
        pairs = torch.cat([maps[:half], maps[half : 2 * half]], dim=1)
        same = (labels[:half] == labels[half : 2 * half]).long()
        return F.cross_entropy(self.contrast(pairs), same)

    def _vector_loss(self, heads: Tensor, before: Tensor, after: Tensor, tails: Tensor) -> Tensor:
        """Return MV: the moved variation keeps its length, points as the tail's, and leaves its class.

        quirk: rows are C values that lie side by side in memory, not one pixel's channels, and one is
        taken off every element of the product of unit rows; as in the survey codebase's RSG.
        """
        count, channels = len(heads), heads.shape[1]
        other_class = torch.zeros(count, dtype=torch.long, device=heads.device)
        leaves = F.cross_entropy(self.contrast(torch.cat([heads, after], dim=1)), other_class)
        v, moved, w = (t.reshape(-1, channels) for t in (before, after, tails))
        lengths = (moved.norm(dim=1) - v.norm(dim=1)).abs().sum()
        angles = (F.normalize(w) * F.normalize(moved) - 1).abs().sum()
        return leaves + (lengths + angles) / count


def _pairs(heads: Tensor, tails: Tensor, strength: float) -> list[tuple[Tensor, Tensor]]:
    """Return (head rows, tail rows) per segment: the smaller group meets blocks of the larger."""
    fewer, more = sorted((len(heads), len(tails)))
    if not fewer:
        return []
    segments = max(1, int(more * strength / fewer))
    blocks = [slice(j * fewer, (j + 1) * fewer) for j in range(segments)]
    if len(heads) >= len(tails):
        return [(heads[block], tails) for block in blocks]
    return [(heads, tails[block]) for block in blocks]


def _conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
