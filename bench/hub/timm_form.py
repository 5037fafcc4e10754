"""A method's model as a timm classifier, if it is one, with timm's names of the weights."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import backbones
from bench.backbones import Backbone
from bench.cell import Cell, DataSet
from bench.data.feed.framing import SEEN
from bench.method import Method
from bench.vision import timm

#: The relative and absolute tolerance of equal logits.
CLOSE = 1e-3


def timm_form(cell: Cell, method: Method) -> nn.Module | None:
    """Return a timm model with the method's logits, or None if there is none.

    There is one if the logits are those of one of its linear layers on one of its backbones, up to a constant
    of each class (as in post-hoc logit adjustment), which goes into the bias.
    """
    if "after" in cell.backbone.options:
        return None
    trained = [module for module in method.modules() if type(module) is Backbone]
    heads = [module for module in method.modules() if isinstance(module, nn.Linear)]
    for backbone, head in product(trained, heads):
        model = _joined(cell, backbone, head)
        if model is not None and _matches(model, method.eval(), cell.dataset.image_size):
            return model
    return None


def _joined(cell: Cell, backbone: Backbone, head: nn.Linear) -> nn.Module | None:
    """Return the cell's timm model with the weights of a backbone and a head, if they fit."""
    name, options = cell.backbone.name, _without_pretraining(cell)
    model: Any = backbones.timm_model(name, num_classes=head.out_features, **options)
    last = model.get_classifier()
    if not isinstance(last, nn.Linear) or last.weight.shape != head.weight.shape or last.bias is None:
        return None
    try:
        missing, unknown = backbones.staged(model).load_state_dict(backbone.state_dict(), strict=False)
    except RuntimeError:  # other shapes
        return None
    if unknown or len(missing) > 2:  # weight and bias of the classifier
        return None
    with torch.no_grad():
        last.weight.copy_(head.weight)
        last.bias.copy_(torch.zeros_like(last.bias) if head.bias is None else head.bias)
    return model


@torch.no_grad()
def _matches(model: Any, method: Method, size: int) -> bool:
    """Fit a model's bias to the method's logits, and return whether the logits then match."""
    images = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits = method(images)
    bias = model.get_classifier().bias
    if logits.shape[1:] != bias.shape:
        return False
    bias.add_((logits - model.eval()(images)).mean(dim=0))
    return torch.allclose(model(images), logits, rtol=CLOSE, atol=CLOSE)


def _without_pretraining(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in cell.backbone.options.items() if name != "pretrained"}


def save(model: Any, cell: Cell, folder: Path, class_names: list[str], licence: str) -> None:
    """Write `model.safetensors` and `config.json` as timm reads them."""
    name = cell.backbone.name
    known = timm.get_pretrained_cfg(name)
    model.pretrained_cfg = {
        "architecture": name,
        "num_classes": len(class_names),
        "license": licence,
        **({key: getattr(known, key) for key in ("first_conv", "classifier")} if known else {}),
        **preprocessing(cell.dataset),
    }
    arguments = backbones.timm_options(name, **_without_pretraining(cell))
    timm.models.save_for_hf(
        model,
        str(folder),
        model_config={"num_classes": len(class_names), "label_names": class_names},
        model_args=arguments or None,
        safe_serialization=True,
    )


def preprocessing(dataset: DataSet) -> dict[str, Any]:
    """Return the preprocessing of test images in timm's terms."""
    size = dataset.image_size
    return {
        "input_size": (3, size, size),
        "test_input_size": None,
        "interpolation": "bilinear",
        "crop_pct": SEEN if dataset.on_disk else 1.0,
        "test_crop_pct": None,
        "crop_mode": "center",
        "mean": dataset.mean,
        "std": dataset.std,
    }
