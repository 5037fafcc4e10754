"""Deep visual prompts: learnt tokens beside the image's, separate in each block (Jia et al., ECCV 2022)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class PromptedBlock(nn.Module):
    """A frozen transformer block with additional tokens, which are dropped after it unless `kept`.

    They follow the image's tokens, and are initialised from a normal of deviation 0.02.
    """

    def __init__(self, block: Any, width: int, prompts: int, *, kept: bool = False) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        self.prompts = nn.Parameter(0.02 * torch.randn(prompts, width))
        self.kept = kept

    def forward(self, tokens: Tensor) -> Tensor:
        prompts = self.prompts.to(tokens).expand(len(tokens), -1, -1)
        seen = self.block(torch.cat([tokens, prompts], dim=1))
        return seen if self.kept else seen[:, : tokens.shape[1]]


def insert_prompts(vit: Any, prompts: int, *, keep_last: bool = False) -> None:
    """Add prompts to every block of a timm ViT; `keep_last` keeps those of the last block in the output."""
    width, last = vit.embed_dim, len(vit.blocks) - 1
    vit.blocks = nn.Sequential(
        *(
            PromptedBlock(block, width, prompts, kept=keep_last and number == last)
            for number, block in enumerate(vit.blocks)
        )
    )


def prompt_count(classes: int, blocks: int) -> int:
    """Return 2^floor(log2(C / L)), at least 1, LIFT+'s rule: 8 for 100 classes and 12 blocks."""
    return 2 ** max(0, math.floor(math.log2(classes / blocks)))
