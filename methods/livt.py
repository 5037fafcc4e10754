"""LiVT: a ViT pretrained by filling in masked patches of the long-tailed images (Xu et al., CVPR 2023)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from bench.vision import timm
from methods.balanced_bce import BalancedBCE
from methods.lift import enlarge, input_side, vit_of
from methods.parts.contrast import unit
from methods.parts.frozen import load_backbone
from methods.parts.prototypes import RunningPrototypes


@register("livt_pretrain")
class MaskedAutoencoder(Method):
    """The first stage: a ViT sees a quarter of the patches, and a small decoder fills in the others.

    This is masked auto-encoding (He et al., CVPR 2022) on the training images alone, without their labels;
    800 epochs in LiVT. Positions are timm's learnt ones, the authors' are fixed. Evaluated alone, its logits
    are the cosines of an image to the running class means.

    Args:
        masked: share of the patches that the encoder does not see.
        decoder_blocks: depth of the decoder.
        decoder_width: as a share of the encoder's width, in heads of 32; 2/3 is 512 of 768.
    """

    needs_backbone: ClassVar[Literal["", "vit"]] = "vit"
    scores = "distances"
    backbone: Backbone

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        masked: float = 0.75,
        decoder_blocks: int = 8,
        decoder_width: float = 2 / 3,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.backbone = make_backbone()
        vit = vit_of(self.backbone)
        self.size, self.patch = input_side(self.backbone), int(vit.patch_embed.patch_size[0])
        self.patches = int(vit.patch_embed.num_patches)
        self.seen = int(self.patches * (1 - masked))
        if not 0 < self.seen < self.patches:
            raise BenchError(
                f"livt_pretrain: masked: {masked} of {self.patches} patches leaves none to see or to fill in"
            )
        self.decoder = Decoder(vit, decoder_blocks, decoder_width)
        self.prototypes = RunningPrototypes(self.num_classes, self.backbone.num_features)

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return {"patch_order": rng.random((size, self.patches), dtype=np.float32)}

    def loss(self, batch: Batch) -> Tensor:
        images = enlarge(batch.images, self.size)
        order = batch.draws["patch_order"].argsort(dim=1)
        tokens = self.encode(images, order[:, : self.seen])
        self.prototypes.follow(unit(self.backbone.pool(tokens)), batch.labels)
        filled = self.decoder(tokens, order)
        return masked_error(filled, normal_patches(images, self.patch), order[:, self.seen :])

    def encode(self, images: Tensor, seen: Tensor) -> Tensor:
        """Return the ViT's last tokens (B, P + K, D): those before the patches, and patches `seen` (B, K)."""
        vit = vit_of(self.backbone)
        tokens = vit._pos_embed(vit.patch_embed(images))
        first, patches = tokens.split([vit.num_prefix_tokens, self.patches], dim=1)
        tokens = torch.cat([first, picked(patches, seen)], dim=1)
        return vit.norm(vit.blocks(vit.norm_pre(tokens)))

    def forward(self, images: Tensor) -> Tensor:
        return self.prototypes.cosines(unit(self.backbone(enlarge(images, self.size))))


class Decoder(nn.Module):
    """Transformer blocks that turn a ViT's tokens of some patches into the pixels of all."""

    positions: Tensor

    def __init__(self, vit: Any, blocks: int, width: float) -> None:
        super().__init__()
        heads = max(1, round(width * vit.embed_dim / 32))
        wide, self.first = 32 * heads, vit.num_prefix_tokens
        self.embed = nn.Linear(vit.embed_dim, wide)
        self.blank = nn.Parameter(0.02 * torch.randn(wide))
        grid = list(vit.patch_embed.grid_size)
        self.register_buffer("positions", timm.layers.pos_embed_sincos.build_sincos2d_pos_embed(grid, wide))
        block = timm.models.vision_transformer.Block
        self.blocks = nn.Sequential(*(block(wide, heads, qkv_bias=True) for _ in range(blocks)))
        self.norm = nn.LayerNorm(wide)
        self.pixels = nn.Linear(wide, 3 * vit.patch_embed.patch_size[0] ** 2)

    def forward(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Return patches (B, L, 3 p^2) from tokens (B, P + K, D) of the first K patches in order (B, L)."""
        first, seen = self.embed(tokens).tensor_split([self.first], dim=1)
        blanks = self.blank.to(seen).expand(len(seen), order.shape[1] - seen.shape[1], -1)
        patches = picked(torch.cat([seen, blanks], dim=1), order.argsort(dim=1)) + self.positions.to(seen)
        whole = self.blocks(torch.cat([first, patches], dim=1))
        return self.pixels(self.norm(whole[:, self.first :]))


@register("livt")
class LiVT(BalancedBCE):
    """The second stage: the whole ViT, trained by balanced binary cross-entropy with layer-wise rates.

    The authors fine-tune for 100 epochs with AdamW and a drop path of 0.1, on the mean of the patches
    (`options: {global_pool: avg}` at the backbone of both stages).

    Args:
        layer_decay: of the learning rate from each block to the previous one; 0.65 in the authors' script.
    """

    needs_backbone: ClassVar[Literal["", "vit"]] = "vit"
    needs_parent = True
    usual_parent = "livt_pretrain"
    mean_over_images = BalancedBCE.mean_over_images
    backbone: Backbone

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        layer_decay: float = 0.75,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.layer_decay = layer_decay
        self.size = input_side(self.backbone)

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, MaskedAutoencoder):
            raise BenchError(f"livt starts from livt_pretrain, not from {type(parent).__name__}")
        load_backbone(self.backbone, parent)

    def param_groups(self) -> list[dict[str, Any]]:
        vit = vit_of(self.backbone)
        last, whole = len(vit.blocks) + 1, vit.no_weight_decay()
        of_vit = {parameter: name for name, parameter in vit.named_parameters()}
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for parameter in self.parameters():
            name = of_vit.get(parameter)
            layer = last if name is None else layer_of(name, last)
            decays = parameter.dim() > 1 and name not in whole
            groups.setdefault((layer, decays), []).append(parameter)
        return [
            {"params": members, "lr_factor": self.layer_decay ** (last - layer)}
            | ({} if decays else {"weight_decay": 0.0})
            for (layer, decays), members in groups.items()
        ]

    def loss(self, batch: Batch) -> Tensor:
        return self.loss_of_features(self.backbone(enlarge(batch.images, self.size)), batch.labels)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(enlarge(images, self.size))


def layer_of(name: str, last: int) -> int:
    """Return the layer of a ViT's parameter: 0 before the blocks, 1 in the first, `last` behind them."""
    part, _, rest = name.partition(".")
    if part == "blocks":
        return int(rest.split(".")[0]) + 1
    return last if part in ("norm", "fc_norm") else 0


def picked(tokens: Tensor, which: Tensor) -> Tensor:
    """Return the tokens `which` (B, K) of each image's (B, L, D), (B, K, D)."""
    return tokens.gather(1, which[:, :, None].expand(-1, -1, tokens.shape[2]))


def normal_patches(images: Tensor, side: int) -> Tensor:
    """Return the patches of images (B, 3, H, W), (B, L, 3 side^2), each with mean 0 and variance 1."""
    patches = F.unfold(images, side, stride=side).transpose(1, 2)
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_error(filled: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean squared error of the patches `hidden` (B, M), of all (B, L, N)."""
    return (filled - patches).square().mean(dim=2).gather(1, hidden).mean()
