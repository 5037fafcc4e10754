"""LIFT: lightweight fine-tuning of a foundation model (Shi et al., ICML 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import Batch, MakeBackbone
from bench.registry import register
from bench.vision import timm
from methods.logit_adjustment import LogitAdjustment
from methods.parts.heads import CosineHead


@register("lift", version=2, pretrained=True)
@register("lift_tte", version=2, expand=24, pretrained=True)
class LIFT(LogitAdjustment):
    """Adapters beside every MLP of a frozen ViT, and a cosine classifier, trained with adjusted logits.

    The backbone is timm's, with the option `pretrained: true`: `vit_base_patch16_clip_quickgelu_224.openai`
    (without "quickgelu" it has another activation than its weights were trained with), or
    `vit_base_patch16_224.augreg_in21k_ft_in1k`, which the authors' code loads as "IN21k" (quirk: it was tuned
    on ImageNet-1k). Images are to be normalised as the network was trained, not by their own data set: see
    recipes/lift_clip.yaml. Smaller ones are enlarged to the network's size; at test to 256 of 224 pixels, of
    which the centre is scored. The authors start CLIP's classifier from text features, which a method here
    cannot read, and IN21k's from class means, as we do for either.

    Args:
        scale: of the cosines.
        head_start: of each class vector: the mean feature of its training images, or a random direction.
        expand: pixels by which a test image is enlarged further, to score its four corners and its centre
            and average (the paper's test-time ensemble: 24); 0 scores the centre alone. quirk: of images on
            disk the loader has already cut the margin off, where the authors' five crops see the whole.
    """

    needs_backbone: ClassVar[Literal["", "vit"]] = "vit"
    head: CosineHead
    backbone: Backbone

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        scale: float = 25.0,
        head_start: Literal["class_means", "random"] = "class_means",
        expand: int = 0,
        **common: Any,
    ) -> None:
        self.scale, self.head_start, self.expand = scale, head_start, expand
        if common.get("embedding"):
            raise BenchError("embedding: LIFT adapts a frozen network and has none; leave it out")
        super().__init__(make_backbone, class_counts, **common)
        self.size = self.tune(self.backbone)

    def tune(self, backbone: Backbone) -> int:
        """Make the backbone ready to be tuned, and return its input's side in pixels."""
        return insert_adapters(backbone, self.num_classes)

    def make_head(self, features: int, classes: int) -> CosineHead:
        return CosineHead(features, classes, self.scale)

    def train(self, mode: bool = True) -> LIFT:
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        if self.head_start == "random":
            return
        self.eval()
        sums = torch.zeros_like(self.head.weight)
        for images, labels in training_set:
            features = self.backbone(enlarge(images, self.size))
            sums.index_add_(0, labels, features.to(sums))
        present = sums.any(dim=1, keepdim=True)
        self.head.weight.copy_(torch.where(present, F.normalize(sums), self.head.weight))

    def mean_over_images(self) -> bool:
        return self.unweighted()

    def loss(self, batch: Batch) -> Tensor:
        return self.loss_of_features(self.backbone(enlarge(batch.images, self.size)), batch.labels)

    def forward(self, images: Tensor) -> Tensor:
        if self.expand:
            crops = five_crops(enlarge(images, self.size + self.expand), self.size)
        elif images.shape[-1] < self.size:
            crops = five_crops(enlarge(images, self.size * 8 // 7), self.size)[-1:]
        else:
            crops = [enlarge(images, self.size)]
        return torch.stack([super(LIFT, self).forward(crop) for crop in crops]).mean(dim=0)


class AdaptFormer(nn.Module):
    """A bottleneck that changes nothing at first: its way up starts at 0 (Chen et al., NeurIPS 2022)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        self.scale = nn.Parameter(torch.ones(1))
        nn.init.kaiming_normal_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.scale * self.up(F.relu(self.down(self.norm(tokens))))


class AdaptedBlock(nn.Module):
    """A frozen transformer block with an adapter beside its MLP: both read the attention's outcome."""

    def __init__(self, block: Any, rank: int) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        self.adapter = AdaptFormer(block.norm2.normalized_shape[0], rank)

    def forward(self, tokens: Tensor) -> Tensor:
        block = self.block
        tokens = tokens + block.ls1(block.attn(block.norm1(tokens)))
        return tokens + block.ls2(block.mlp(block.norm2(tokens))) + self.adapter(tokens)


def vit_of(backbone: Backbone) -> Any:
    """Return timm's model of a vision transformer."""
    vit = getattr(next(iter(backbone.stages.values())), "model", None)
    if not isinstance(vit, timm.models.VisionTransformer):
        raise BenchError("this method needs a vision transformer; choose a backbone vit_... of timm")
    return vit


def frozen_vit(backbone: Backbone) -> Any:
    """Freeze a ViT, and return timm's model of it."""
    vit = vit_of(backbone)
    backbone.requires_grad_(False)
    return vit


def insert_adapters(backbone: Backbone, classes: int) -> int:
    """Freeze a ViT, put an adapter into each of its blocks, and return its input's side in pixels."""
    vit = frozen_vit(backbone)
    rank = adapter_rank(classes, len(vit.blocks))
    vit.blocks = nn.Sequential(*(AdaptedBlock(block, rank) for block in vit.blocks))
    return int(vit.patch_embed.img_size[0])


def adapter_rank(classes: int, blocks: int) -> int:
    """Return 2^floor(log2(C / 2L)), at least 1: all adapters together have about the head's parameters."""
    return 2 ** max(0, math.floor(math.log2(classes / (2 * blocks))))


def enlarge(images: Tensor, size: int) -> Tensor:
    """Resize images (B, 3, H, W) to `size` pixels, bilinear as torchvision does."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def five_crops(images: Tensor, size: int) -> list[Tensor]:
    """Return the four corners and the centre of images (B, 3, H, W), each of `size` pixels."""
    low, high = 0, images.shape[-1] - size
    corners = [(low, low), (low, high), (high, low), (high, high), (high // 2, high // 2)]
    return [images[..., y : y + size, x : x + size] for y, x in corners]
