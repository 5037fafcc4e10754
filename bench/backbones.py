"""Backbones: every model of timm, and the CIFAR ResNets of the long-tail literature.

A `Backbone` is a timm model without its classifier, as a sequence of named stages. A method can take pooled
features or the last feature map, or split it after any stage and insert something.
"""

from __future__ import annotations

import re
from typing import Any, Self

import torch
from torch import Tensor, nn

from bench.cifar_resnets import CIFAR_CHANNELS
from bench.errors import BenchError, did_you_mean
from bench.ranks import by_rows
from bench.vision import timm


def count_parameters(module: nn.Module) -> int:
    """Count the parameters, trainable or frozen."""
    return sum(p.numel() for p in module.parameters())


class Backbone(nn.Module):
    """A timm model without classifier, as named stages; a ResNet has several, any other model one.

    In a run on several GPUs, each computes its own images in `forward` and `feature_map` (see `bench.ranks`).
    """

    #: The dimension of the images in features and maps.
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

    `width` scales the channels of all stages of a ResNet, `narrow` also those after the stage `after`. With
    `after` only the stages after it are returned: an expert's branch (RIDE, section 3.2: narrow 3/4). Any
    other option is a keyword of the timm model.
    """
    after = options.get("after")
    model = timm_model(name, num_classes=0, **options)
    backbone = staged(model)
    return backbone.split(after)[1] if after else backbone


def timm_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Create a backbone's whole timm model, with a classifier unless `num_classes` is 0."""
    if not timm.is_model(name):
        raise BenchError(f"unknown backbone {name!r}{did_you_mean(name, timm.list_models())}")
    try:
        return timm.create_model(name, num_classes=num_classes, **timm_options(name, **options))
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument (\S+)", str(error))
        reason = f"it has no option {unknown[1]}; leave it out" if unknown else error
        raise BenchError(f"backbone {name!r}: {reason}") from error


def timm_options(name: str, **options: Any) -> dict[str, Any]:
    """Return a backbone's options as timm's keywords, with `width` and `narrow` as channels."""
    after, width, narrow = options.pop("after", None), options.pop("width", 1.0), options.pop("narrow", 1.0)
    if (width, narrow) != (1.0, 1.0):
        options["channels"] = _scaled_channels(name, after, width, narrow, options)
    return options


def staged(model: Any) -> Backbone:
    """Return a timm model as a backbone that shares its weights, without the classifier."""
    # the output of `forward_head` may be wider than the last map (MobileNetV3, GhostNet, VGG)
    return Backbone(
        _stages(model), _Head(model), getattr(model, "head_hidden_size", None) or model.num_features
    )


def check_input(name: str, size: int, **options: Any) -> None:
    """Check, without weights, that a backbone computes features of images of `size` pixels.

    Raises:
        BenchError: it does not; the message names the option that helps, if one is known.
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
    """Return why a backbone cannot compute features of two images of `size` pixels; None if it can."""
    options = {key: value for key, value in options.items() if key != "pretrained"}
    reason = ""
    for device in ("meta", "cpu"):  # meta computes only shapes; what fails there may work on the CPU
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
        return {"all": _Features(model)}  # more than a stem and layers: HRNet, SENet
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
    """timm's `forward_head` up to the pooled features; its weights are those of the stages."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model: list[Any] = [model]  # in a list, so that its weights are not registered twice

    def train(self, mode: bool = True) -> Self:
        self._model[0].training = mode  # timm's heads read it for dropout
        return super().train(mode)

    def forward(self, feature_map: Tensor) -> Tensor:
        return self._model[0].forward_head(feature_map, pre_logits=True)
