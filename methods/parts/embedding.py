"""An embedding between a backbone's features and its heads, as face recognition has it."""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.backbones import Backbone

#: The width of an embedding: a number, the backbone's own, or None for no embedding.
Width = int | Literal["same"] | None


def embedded(backbone: Backbone, width: Width) -> Backbone:
    """Return the backbone with a linear layer and batch norm behind its pooling, or as it is for None.

    Pooled features follow a ReLU, so that all lie in one orthant and no cosine between them is negative;
    what comes out of here has both signs (arcface-pytorch, models/resnet.py: linear, then batch norm).
    """
    if width is None:
        return backbone
    features = backbone.num_features
    width = features if width == "same" else width
    layers = nn.Sequential(backbone._pool, nn.Linear(features, width, bias=False), nn.BatchNorm1d(width))
    return Backbone(dict(backbone.stages.items()), layers, width)
