"""The two branches of BBN (Zhou et al., CVPR 2020, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import MakeBackbone
from bench.ranks import by_rows


class TwoBranches(Backbone):
    """A backbone whose last residual block exists twice; features are those of both, (B, 2D)."""

    def __init__(self, make_backbone: MakeBackbone) -> None:
        whole, second = make_backbone(), make_backbone()
        last = whole.stage_names[-1]
        blocks, others = whole.stages[last], second.stages[last]
        if not (isinstance(blocks, nn.Sequential) and isinstance(others, nn.Sequential)):
            raise BenchError("two branches need a backbone that ends in residual blocks; choose a ResNet")
        stages = {**dict(whole.stages.items()), last: blocks[:-1]}
        super().__init__(stages, whole._pool, 2 * whole.num_features)
        self.branches = nn.ModuleList([blocks[-1], others[-1]])

    @by_rows
    def branch(self, number: int, images: Tensor) -> Tensor:
        """Return the pooled features (B, D) of one branch alone."""
        return self.pool(self.branches[number](super().feature_map(images)))

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature maps of both branches, (B, 2D, h, w)."""
        shared = super().feature_map(images)
        return torch.cat([branch(shared) for branch in self.branches], dim=1)
