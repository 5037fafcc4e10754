"""Backbones in a recipe: a name, or a name and options."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from bench.cell import BackboneChoice
from bench.errors import did_you_mean
from bench.recipe.schema import parse
from bench.recipe.tree import Node, shown


def read_backbone(node: Node) -> Node:
    """Return a backbone as a mapping with a known name.

    Raises:
        BenchError: neither timm nor this project has a network of that name.
    """
    if not isinstance(node.value, dict):
        node = replace(node, value={"name": node})
    name = parse(BackboneChoice, node).name
    if name not in _backbones():
        known = did_you_mean(name, _backbones())
        raise node.find(("name",)).fault(f"unknown backbone {shown(name)}{known}")
    return node


@cache
def _backbones() -> frozenset[str]:
    """Return the names of all timm models, with and without pretrained tags."""
    import bench.backbones  # noqa: F401  registers the CIFAR ResNets; importing timm takes seconds
    from bench.vision import timm

    return frozenset(timm.list_models()) | frozenset(timm.list_models(pretrained=True))
