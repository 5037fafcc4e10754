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
from methods.parts.cosines import CosineClassifier
from methods.parts.heads import CosineHead


@register("lift", version=2, pretrained=True)
@register("lift_tte", version=2, expand=24, pretrained=True)
class LIFT(CosineClassifier, LogitAdjustment):
    """Adapters beside every MLP of a frozen ViT, and a cosine classifier, trained with adjusted logits.

    The backbone is timm's, with the option `pretrained: true`: `vit_base_patch16_clip_quickgelu_224.openai`
    (without "quickgelu" its activation differs from that of its weights), or
    `vit_base_patch16_224.augreg_in21k_ft_in1k`, which the authors' code loads as "IN21k" (quirk: it was
    fine-tuned on ImageNet-1k). Images must be normalised as for the network, not by their data set: see
    recipes/lift_clip.yaml. Smaller images are enlarged to the network's size; at test to 256 of 224 pixels,
    of which the centre is used. The authors start CLIP's classifier from text features, which this method
    cannot read, and IN21k's from class means, which we use for both.

    Args:
        scale: of the cosines.
        head_start: of each class vector: the mean feature of its training images, or a random direction.
        expand: pixels by which a test image is enlarged further, to average the logits of its four corners
            and its centre (the paper's test-time ensemble: 24); 0 for the centre alone. quirk: for images on
            disk the loader has already cropped the margin, while the authors' five crops cover the whole
            image.
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
        self.head_start, self.expand = head_start, expand
        if common.get("embedding"):
            raise BenchError("embedding: LIFT adapts a frozen network and has none; leave it out")
        super().__init__(make_backbone, class_counts, scale=scale, **common)
        self.tune(self.backbone)
        self.size = input_side(self.backbone)

    def tune(self, backbone: Backbone) -> None:
        """Freeze the backbone, and add what is tuned."""
        insert_adapters(backbone, self.num_classes)

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
    """A bottleneck whose output starts at 0 (Chen et al., NeurIPS 2022)."""

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
    """A frozen transformer block with an adapter beside its MLP; both read the attention's output."""

    def __init__(self, block: Any, rank: int) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        self.adapter = AdaptFormer(block.norm2.normalized_shape[0], rank)

    def forward(self, tokens: Tensor) -> Tensor:
        block = self.block
        tokens = tokens + block.ls1(block.attn(block.norm1(tokens)))
        return tokens + block.ls2(block.mlp(block.norm2(tokens))) + self.adapter(tokens)


def vit_of(backbone: Backbone) -> Any:
    """Return timm's model of a ViT."""
    vit = getattr(next(iter(backbone.stages.values())), "model", None)
    if not isinstance(vit, timm.models.VisionTransformer):
        raise BenchError("this method needs a vision transformer; choose a backbone vit_... of timm")
    return vit


def input_side(backbone: Backbone) -> int:
    """Return the side of a ViT's input in pixels."""
    return int(vit_of(backbone).patch_embed.img_size[0])


def frozen_vit(backbone: Backbone) -> Any:
    """Freeze a ViT, and return timm's model of it."""
    vit = vit_of(backbone)
    backbone.requires_grad_(False)
    return vit


def insert_adapters(backbone: Backbone, classes: int) -> None:
    """Freeze a ViT, and put an adapter into each of its blocks."""
    vit = frozen_vit(backbone)
    rank = adapter_rank(classes, len(vit.blocks))
    vit.blocks = nn.Sequential(*(AdaptedBlock(block, rank) for block in vit.blocks))


def adapter_rank(classes: int, blocks: int) -> int:
    """Return 2^floor(log2(C / 2L)), at least 1: all adapters together are about as large as the head."""
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
