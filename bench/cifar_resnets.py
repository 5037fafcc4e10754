"""The CIFAR ResNets of the long-tail literature, registered with timm by importing this module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.vision import timm

CIFAR_CHANNELS = (16, 32, 64)


class _Block(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut: subsample, then pad channels on both sides."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, missing = stride, outputs - inputs
        self.pad = (missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or any(self.pad):
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.pad))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet for 32x32 images (He et al. 2016, section 4.2; LDAM-DRW's variant): 6n+2 layers.

    Option-A shortcuts without parameters, Kaiming-normal weights (fan-in), 16/32/64 channels.
    """

    def __init__(
        self,
        blocks: int,
        channels: tuple[int, ...] = CIFAR_CHANNELS,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if global_pool != "avg":
            raise TypeError(f"global_pool={global_pool!r}: the CIFAR ResNets pool by average only")
        self.num_classes, self.num_features = num_classes, channels[-1]
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.act1 = nn.ReLU()
        width = channels[0]
        for number, outputs in enumerate(channels, start=1):
            strides = [1 if number == 1 else 2] + [1] * (blocks - 1)
            layer = nn.Sequential()
            for stride in strides:
                layer.append(_Block(width, outputs, stride))
                width = outputs
            self.add_module(f"layer{number}", layer)
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (B, D, 8, 8) of (B, 3, 32, 32) images."""
        for name, module in self.named_children():
            if name not in ("global_pool", "fc"):
                x = module(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a feature map, and classify it unless `pre_logits`."""
        x = self.global_pool(x)
        return x if pre_logits else self.fc(x)

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        return self.forward_head(self.forward_features(x))


DEPTHS = (8, 20, 32, 44, 56)
default_cfgs = timm.models.generate_default_cfgs(
    {
        f"resnet{depth}_cifar": {
            "input_size": (3, 32, 32),
            "num_classes": 10,
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for depth in DEPTHS
    }
)


def _model_of(depth: int) -> Callable[..., CifarResNet]:
    """Return timm's entry point for a depth, named as the model."""

    def create(pretrained: bool = False, **options: Any) -> CifarResNet:
        options.setdefault("blocks", (depth - 2) // 6)
        return timm.models.build_model_with_cfg(CifarResNet, create.__name__, pretrained, **options)

    create.__name__ = f"resnet{depth}_cifar"
    return create


for _depth in DEPTHS:
    timm.models.register_model(_model_of(_depth))
