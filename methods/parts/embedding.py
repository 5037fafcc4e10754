"""An embedding layer between a backbone's features and its heads, as in face recognition."""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.backbones import Backbone

#: The width of an embedding: a number, the backbone's width, or None for no embedding.
Width = int | Literal["same"] | None


def embedded(backbone: Backbone, width: Width) -> Backbone:
    """Return the backbone with a linear layer and batch norm after its pooling, or unchanged for None.

    Pooled features follow a ReLU, so that they are in one orthant and no cosine between them is negative;
    embeddings have both signs (arcface-pytorch, models/resnet.py: linear, then batch norm).
    """
    if width is None:
        return backbone
    features = backbone.num_features
    width = features if width == "same" else width
    layers = nn.Sequential(backbone._pool, nn.Linear(features, width, bias=False), nn.BatchNorm1d(width))
    return Backbone(dict(backbone.stages.items()), layers, width)
