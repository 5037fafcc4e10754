"""RSG: a Rare-class Sample Generator inside the network (Wang et al., CVPR 2021).

Between two late stages it adds the variation of head-class feature maps to tail-class ones, so that the later
stages see more tail images. It is not used at test.
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
    """LDAM-DRW on a batch to which the generator adds tail-class feature maps.

    The defaults are the authors' for CIFAR. On ImageNet-LT, as in the mini-ImageNet-LT collection, the margin
    is 0.3, and batches are re-sampled instead of re-weighted (`resample` true, `reweight_from` null).

    Args:
        generate_from: share of the epochs after which maps are generated; 0.8 is epoch 160 of 200, 1 is
            never.
        resample: draw batches by effective numbers from then on.
        head_share: share of the classes, by count, whose variation is used.
        centers: feature centres of each class.
        contrast_width: channels of the module that classifies whether two maps are of one class.
        strength: number of generated maps, as a share of the head-class maps of a batch.
        cesc_weight: of the centre-estimation and sample-contrast loss.
        mv_weight: of the maximised-vector loss.
    """

    capturable = False  # how many maps are generated depends on the batch
    is_head: Tensor
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
            raise BenchError("rsg needs a backbone with several stages; choose a ResNet")
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
        features, labels, cesc, mv = self.enlarged(batch.images, batch.labels)
        return self.loss_of_features(features, labels) + (self.cesc_weight * cesc + self.mv_weight * mv)

    def enlarged(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features and labels, the generated ones last, L_CESC and L_MV."""
        before, behind = self.backbone.split(self.after)
        pairs = head_tail_pairs(self.is_head[labels], self.strength) if self.generating else None
        maps, labels, cesc, mv = self.generator(before.feature_map(images), labels, pairs)
        return behind(maps), labels, cesc, mv


def _output_channels(stages: nn.Module) -> int:
    norms = [m for m in stages.modules() if isinstance(m, nn.BatchNorm2d)]
    return norms[-1].num_features


class Generator(nn.Module):
    """Centres of each class with a soft gate, a contrastive module, and a vector transformation.

    Its input is detached, so that the stages before it learn only from the task.
    """

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
        self, maps: Tensor, labels: Tensor, pairs: list[tuple[Tensor, Tensor]] | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return maps (B, C, H, W) and labels with the generated ones appended, L_CESC and L_MV.

        Args:
            pairs: rows of head-class and tail-class maps (see `head_tail_pairs`); None while the centres and
                the contrastive module are learnt and nothing is generated.
        """
        seen, mv = maps.detach(), maps.new_zeros(())
        gates = self.gates(seen, labels)
        cesc = self.center_loss(seen, labels, gates)
        if pairs is None:
            cesc = cesc + self.contrast_loss(seen, labels)
        elif pairs:
            center = self.centers.detach()[labels, gates.argmax(dim=1)]
            variation = seen - center[:, :, None, None]
            moved = [self.transform(variation[heads]) for heads, _ in pairs]
            losses = [
                self.vector_loss(seen[heads], variation[heads], new, variation[tails])
                for (heads, tails), new in zip(pairs, moved, strict=True)
            ]
            mv = torch.stack(losses).mean()
            rows = torch.cat([tails for _, tails in pairs])
            maps = torch.cat([maps, seen[rows] + torch.cat(moved)])
            labels = torch.cat([labels, labels[rows]])
        return maps, labels, cesc, mv

    def gates(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return the weights of the class's centres for each map, (B, K), summing to one."""
        pooled = maps.mean(dim=(2, 3))
        logits = torch.einsum("bc,bck->bk", pooled, self.gate_weight[labels]) + self.gate_bias[labels]
        return logits.softmax(dim=1)

    def center_loss(self, maps: Tensor, labels: Tensor, gates: Tensor) -> Tensor:
        """Return the squared distance of maps to the centres of their class, weighted by the gates."""
        offsets = maps[:, None] - self.centers[labels][:, :, :, None, None]  # (B, K, C, H, W)
        return (gates * offsets.square().sum(dim=(2, 3, 4))).sum() / len(maps)

    def contrast_loss(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return the CE of classifying whether the i-th maps of both halves are of one class."""
        half = len(maps) // 2  # one is left out of an odd batch
        if not half:
            return maps.new_zeros(())
        pairs = torch.cat([maps[:half], maps[half : 2 * half]], dim=1)
        same = (labels[:half] == labels[half : 2 * half]).long()
        return F.cross_entropy(self.contrast(pairs), same)

    def vector_loss(self, heads: Tensor, before: Tensor, after: Tensor, tails: Tensor) -> Tensor:
        """Return L_MV: the moved variation keeps its length, points like the tail's, and leaves its class.

        quirk: rows are C adjacent values in memory, not one pixel's channels, and one is subtracted from
        every element of the product of unit rows; as in the survey codebase's RSG.
        """
        count, channels = len(heads), heads.shape[1]
        other_class = torch.zeros(count, dtype=torch.long, device=heads.device)
        leaves = F.cross_entropy(self.contrast(torch.cat([heads, after], dim=1)), other_class)
        v, moved, w = (t.reshape(-1, channels) for t in (before, after, tails))
        lengths = (moved.norm(dim=1) - v.norm(dim=1)).abs().sum()
        angles = (F.normalize(w) * F.normalize(moved) - 1).abs().sum()
        return leaves + (lengths + angles) / count


def head_tail_pairs(is_head: Tensor, strength: float) -> list[tuple[Tensor, Tensor]]:
    """Return rows of head-class and tail-class maps of a batch, in blocks of the smaller group's size.

    The smaller group is paired with one block of the larger after another; `strength` is the share of blocks
    that are used, at least one. If a group is empty there are no pairs.
    """
    heads, tails = is_head.nonzero()[:, 0], (~is_head).nonzero()[:, 0]
    fewer, more = sorted((len(heads), len(tails)))
    if not fewer:
        return []
    count = max(1, int(more * strength / fewer))
    blocks = [slice(j * fewer, (j + 1) * fewer) for j in range(count)]
    if len(heads) >= len(tails):
        return [(heads[block], tails) for block in blocks]
    return [(heads, tails[block]) for block in blocks]


def _conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
