"""Experts whose features join a shallow and a deep part of one backbone (SHIKE, section 3.2)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import MakeBackbone
from methods.parts.experts import ExpertBackbone


class FusedExperts(ExpertBackbone):
    """A backbone whose last stage exists once per expert, times convolutions of a shallower stage.

    Expert i starts from stage i of those shared, in turn: on a CIFAR ResNet from layer1, layer2, layer1.
    """

    def __init__(self, make_backbone: MakeBackbone, experts: int) -> None:
        whole = make_backbone()
        if len(whole.stage_names) < 3:
            raise BenchError("experts need a backbone of several stages; choose a ResNet")
        *shared, last = whole.stage_names
        branches = [make_backbone(after=shared[-1]) for _ in range(experts)]
        super().__init__({name: whole.stages[name] for name in shared}, whole._pool, whole.num_features)
        self.deep = nn.ModuleList(branch.stages[last] for branch in branches)
        channels = _channels(whole)[1:]
        sources = [i % len(self.shallow_names) for i in range(experts)]
        self.shallow = nn.ModuleList(_descent(channels[source:]) for source in sources)

    @property
    def shallow_names(self) -> tuple[str, ...]:
        """The shared stages that shallow features come from: all but the stem."""
        return self.stage_names[1:]

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the experts' last feature maps, the product of their two parts."""
        maps = []
        for stage in self.stages.values():
            images = stage(images)
            maps.append(images)
        shallow_maps = maps[1:]
        experts = enumerate(zip(self.deep, self.shallow, strict=True))
        return torch.stack(
            [deep(images) * shallow(shallow_maps[i % len(shallow_maps)]) for i, (deep, shallow) in experts]
        )


def _descent(channels: list[int]) -> nn.Sequential:
    """Strided 3x3 convolutions through the widths of the stages, halving the side each time.

    quirk: a ReLU follows each but the second.
    """
    layers = nn.Sequential()
    for number, (inputs, outputs) in enumerate(pairwise(channels)):
        layers.extend([nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs)])
        if number != 1:
            layers.append(nn.ReLU())
    return layers


@torch.no_grad()
def _channels(backbone: Backbone) -> list[int]:
    """Measure the channels of every stage's output."""
    backbone.eval()
    x, found = torch.zeros(1, 3, 64, 64), []
    for stage in backbone.stages.values():
        x = stage(x)
        found.append(x.shape[1])
    backbone.train()
    return found
