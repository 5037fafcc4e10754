"""Backbones: every model timm can create, plus the CIFAR ResNets of the long-tail literature.

A `Backbone` is a timm model without its classifier, seen as a row of named stages, so that a method can
take pooled features, the last feature map, or split it after any stage and put something in between.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError, did_you_mean
from bench.ranks import by_rows
from bench.vision import timm


def count_parameters(module: nn.Module) -> int:
    """Count the parameters, trainable or frozen."""
    return sum(p.numel() for p in module.parameters())


class Backbone(nn.Module):
    """A timm model without classifier, as named stages; ResNets split, other models are one stage.

    Of a run over several GPUs, each does its own images in `forward` and `feature_map` (see `bench.ranks`).
    """

    #: Where features and maps have their images.
    rows_dim = 0

    def __init__(self, stages: dict[str, nn.Module], pool: nn.Module, num_features: int) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self._pool = pool
        self.num_features = num_features

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages in order: "stem", "layer1", ... ("all" for a model without stages)."""
        return tuple(self.stages)

    @by_rows
    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features (B, D)."""
        return self.pool(self.feature_map(images))

    @by_rows
    def feature_map(self, images: Tensor) -> Tensor:
        """Return the output of the last stage: (B, D, h, w) for convolutional models."""
        for stage in self.stages.values():
            images = stage(images)
        return images

    def pool(self, feature_map: Tensor) -> Tensor:
        """Pool a last feature map to (B, D)."""
        return self._pool(feature_map)

    def split(self, after: str) -> tuple[Backbone, Backbone]:
        """Return the part up to and including the stage `after`, and the rest; both share weights."""
        if after not in self.stage_names[:-1]:
            raise BenchError(
                f"cannot split a backbone after {after!r}{did_you_mean(after, self.stage_names[:-1])}"
            )
        cut = self.stage_names.index(after) + 1
        parts = list(self.stages.items())
        trunk = Backbone(dict(parts[:cut]), nn.Identity(), 0)
        return trunk, Backbone(dict(parts[cut:]), self._pool, self.num_features)


def create(name: str, **options: Any) -> Backbone:
    """Create a backbone by timm name.

    `width` scales the channels of all stages of a ResNet, `narrow` those behind the stage `after` once more.
    With `after` the result holds only the stages behind it: an expert's branch (RIDE, section 3.2 of the
    paper: narrow 3/4). Any other option is the timm model's own keyword.
    """
    after = options.get("after")
    model = timm_model(name, num_classes=0, **options)
    backbone = staged(model)
    return backbone.split(after)[1] if after else backbone


def timm_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Create the timm model of a backbone's options, whole, with a classifier if `num_classes` is not 0."""
    if not timm.is_model(name):
        raise BenchError(f"unknown backbone {name!r}{did_you_mean(name, timm.list_models())}")
    try:
        return timm.create_model(name, num_classes=num_classes, **timm_options(name, **options))
    except TypeError as error:
        raise BenchError(f"backbone {name!r}: {error}") from error


def timm_options(name: str, **options: Any) -> dict[str, Any]:
    """Return a backbone's options as timm's own keywords, `width` and `narrow` as channels."""
    after, width, narrow = options.pop("after", None), options.pop("width", 1.0), options.pop("narrow", 1.0)
    if (width, narrow) != (1.0, 1.0):
        options["channels"] = _scaled_channels(name, after, width, narrow, options)
    return options


def staged(model: Any) -> Backbone:
    """Return a timm model as a backbone that shares its weights, a classifier aside."""
    # what `forward_head` ends with may be wider than the last map (MobileNetV3, GhostNet, VGG)
    return Backbone(
        _stages(model), _Head(model), getattr(model, "head_hidden_size", None) or model.num_features
    )


def check_input(name: str, size: int, **options: Any) -> None:
    """See, without weights, that a backbone takes images of `size` pixels and pools features of them.

    Raises:
        BenchError: it does not; the message names the option that mends it, where one is known.
    """
    reason = _refusal(name, size, options)
    if reason is None:
        return
    known = timm.get_pretrained_cfg(name)
    own = known.input_size[1] if known else size
    remedies = []
    if "img_size" not in options and _works(name, size, {**options, "img_size": size}):
        remedies.append(f"write backbone: {{name: {name}, options: {{img_size: {size}}}}}")
    if size != own and _works(name, own, options):
        remedies.append(f"give the data set image_size: {own}")
    remedy = ", or ".join(remedies) or "take another backbone"
    raise BenchError(f"backbone {name!r} does not work on images of {size} pixels ({reason}); {remedy}")


def _works(name: str, size: int, options: dict[str, Any]) -> bool:
    try:
        return _refusal(name, size, options) is None
    except BenchError:  # it has no such option
        return False


def _refusal(name: str, size: int, options: dict[str, Any]) -> str | None:
    """Say why a backbone cannot score two images of `size` pixels; None if it can."""
    options = {key: value for key, value in options.items() if key != "pretrained"}
    reason = ""
    for device in ("meta", "cpu"):  # the first computes shapes alone; what it cannot do, the second may
        try:
            with torch.random.fork_rng(devices=()), torch.device(device), torch.no_grad():
                backbone = create(name, **options)
                features = backbone(torch.zeros(2, 3, size, size))
        except BenchError:
            raise
        except Exception as error:  # whatever a model raises
            reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:120]
            continue
        if features.shape == (2, backbone.num_features):
            return None
        return f"it gives features {tuple(features.shape)} instead of (2, {backbone.num_features})"
    return reason


def _stages(model: nn.Module) -> dict[str, nn.Module]:
    names = [name for name, _ in model.named_children()]
    first = names.index("layer1") if "layer1" in names else 0
    layers = [name for name in names[first:] if name.startswith("layer")]
    if not first or "layer0" in names or {*names[first:]} - {*layers, "global_pool", "fc"}:
        return {"all": _Features(model)}  # its maps do not come of a stem and layers alone: HRNet, SENet
    stem = nn.Sequential(*(getattr(model, name) for name in names[:first]))
    return {"stem": stem, **{name: getattr(model, name) for name in layers}}


def _scaled_channels(
    name: str, after: str | None, width: float, narrow: float, options: dict[str, Any]
) -> tuple[int, ...]:
    whole = create(name, **options)
    layers = [n for n in whole.stage_names if n != "stem"]
    if len(layers) < 2:
        raise BenchError(f"backbone {name!r} has no stages to scale; width works on ResNets")
    kept = layers.index(after) + 1 if after in layers else 0
    base = options.get("channels", CIFAR_CHANNELS if name.endswith("_cifar") else (64, 128, 256, 512))
    wide = [int(c * width) for c in base]
    return tuple(c if i < kept else int(c * narrow) for i, c in enumerate(wide))


class _Features(nn.Module):
    """timm's `forward_features` as a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward_features(images)  # type: ignore[operator]


class _Head(nn.Module):
    """timm's `forward_head` up to the pooled features; it owns no weights the stages do not own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model: list[Any] = [model]  # in a list, so that its weights are not listed twice

    def train(self, mode: bool = True) -> Self:
        self._model[0].training = mode  # timm's heads look here whether to drop features
        return super().train(mode)

    def forward(self, feature_map: Tensor) -> Tensor:
        return self._model[0].forward_head(feature_map, pre_logits=True)


# -- the CIFAR ResNets ------------------------------------------------------------------------------
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
        """Return what `forward_head` ends with."""
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        return self.forward_head(self.forward_features(x))


def _cifar(depth: int, pretrained: bool, options: dict[str, Any]) -> CifarResNet:
    options.setdefault("blocks", (depth - 2) // 6)
    name = f"resnet{depth}_cifar"
    return timm.models.build_model_with_cfg(CifarResNet, name, pretrained, **options)


default_cfgs = timm.models.generate_default_cfgs(
    {
        f"resnet{depth}_cifar": {
            "input_size": (3, 32, 32),
            "num_classes": 10,
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for depth in (8, 20, 32, 44, 56)
    }
)


@timm.models.register_model
def resnet8_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Return the CIFAR ResNet with 8 layers."""
    return _cifar(8, pretrained, options)


@timm.models.register_model
def resnet20_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Return the CIFAR ResNet with 20 layers."""
    return _cifar(20, pretrained, options)


@timm.models.register_model
def resnet32_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Return the CIFAR ResNet with 32 layers, the literature's (470,004 parameters, 100 classes)."""
    return _cifar(32, pretrained, options)


@timm.models.register_model
def resnet44_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Return the CIFAR ResNet with 44 layers."""
    return _cifar(44, pretrained, options)


@timm.models.register_model
def resnet56_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Return the CIFAR ResNet with 56 layers."""
    return _cifar(56, pretrained, options)
