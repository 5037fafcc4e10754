"""The axes of `grid:` and `zip:`, and the data sets and backbones that their values name."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from math import prod

from bench.cell import DataSet, Protocol
from bench.data.sets.catalogue import DATASETS
from bench.errors import did_you_mean
from bench.recipe.methods import LabelSpec, check_name
from bench.recipe.networks import read_backbone
from bench.recipe.schema import each, parse
from bench.recipe.tree import Node, merge, plant, shown
from bench.recipe.yaml_text import DEEPEST

#: A point of the grid: one value of each axis, by the axis's key.
Values = dict[str, Node]

MOST_CELLS = 100_000

_NEEDED = ("dataset", "imbalance_factor", "backbone")
#: Axes that change how the tail of each data set is drawn.
TAIL_AXES = ("profile", "split_seed", "class_order", "label_noise")

_PLAIN = (*_NEEDED, *TAIL_AXES, "seed", "mode")
_INSIDE = ("protocol.", "params.", "backbone.options.")


def read_points(root: Node, specs: Collection[LabelSpec], has_card: bool = False) -> list[Values]:
    """Return the full product of the axes, the last one fastest; zipped axes change together.

    With cards the backbone is optional, as they have one.
    """
    grid, zipped = root.mapping["grid"], root.mapping.get("zip")
    groups = [replace(grid, value={key: node}) for key, node in grid.mapping.items()]
    groups += zipped.elements if zipped else []
    _check_keys(groups, specs)
    needed = [key for key in _NEEDED if key != "backbone" or not has_card]
    missing = [key for key in needed if not any(key in group.value for group in groups)]
    natural = missing == ["imbalance_factor"]  # allowed if all data sets keep their own tail; checked below
    if missing and not natural:
        raise grid.fault(f"needs {', '.join(missing)}")
    rows = each(_rows, groups)
    if (size := len(specs) * prod(map(len, rows))) > MOST_CELLS:
        raise grid.fault(f"makes {size:,} cells; the most is {MOST_CELLS:,}")
    datasets = read_datasets(root.mapping.get("datasets"))
    resolved = each(lambda group: _resolve(group, datasets), rows)
    points = [
        {key: node for part in parts for key, node in part.items()} for parts in itertools.product(*resolved)
    ]
    return [_natural(point, grid) for point in points] if natural else points


def _natural(point: Values, grid: Node) -> Values:
    """Add imbalance factor 1 to a point whose data set keeps its own tail."""
    dataset = point["dataset"]
    if dataset.mapping["profile"].plain != "natural":
        name = shown(dataset.mapping["name"].plain)
        raise grid.fault(f"needs imbalance_factor, as {name} has no tail of its own (profile: natural)")
    return {**point, "imbalance_factor": replace(dataset, value=1)}


def _check_keys(groups: Iterable[Node], specs: Iterable[LabelSpec]) -> None:
    params = {f"params.{name}" for s in specs for name in s.hyperparameters.model_fields}
    protocol = {f"protocol.{name}" for name in Protocol.model_fields}
    taken: dict[str, Node] = {}

    def check(item: tuple[str, Node]) -> None:
        key, node = item
        inside = key.startswith(_INSIDE) and all(key.split("."))
        if key in taken:
            raise node.fault(f"{key!r} is an axis already at {taken[key].location}")
        if key.startswith("params.") and key not in params:
            raise node.fault(f"no method here has it{did_you_mean(key, params)}")
        if key not in _PLAIN and not inside:
            known = did_you_mean(key, {*_PLAIN, *params, *protocol})
            raise node.fault(f"unknown axis {shown(key)}{known}")
        taken[key] = node

    each(check, (item for group in groups for item in group.mapping.items()))


def _rows(group: Node) -> list[Values]:
    """Return the combinations of values of axes that change together."""
    lengths = {key: len(axis.elements) for key, axis in group.value.items()}
    for key, axis in group.value.items():
        if not axis.elements:
            raise axis.fault("is empty; give it a value")
        if lengths[key] != max(lengths.values()):
            raise axis.fault(f"has {lengths[key]} values beside {max(lengths.values())}")
    if not lengths:
        raise group.fault("has no axis")
    columns = [[(key, node) for node in axis.elements] for key, axis in group.value.items()]
    rows = [dict(row) for row in zip(*columns, strict=True)]
    seen: set[str] = set()
    for row in rows:
        content = json.dumps({key: node.plain for key, node in row.items()}, sort_keys=True)
        if content in seen:
            node = next(iter(row.values()))
            raise node.fault(f"{shown(node.plain)} is listed twice")
        seen.add(content)
    return rows


def _resolve(rows: list[Values], datasets: dict[str, DataSet]) -> list[Values]:
    """Replace the names of data sets and backbones by their definitions."""

    def resolve(item: tuple[str, Node]) -> tuple[str, Node]:
        key, node = item
        if key == "dataset":
            return key, _dataset(node, datasets)
        return key, read_backbone(node) if key == "backbone" else node

    return each(lambda row: dict(each(resolve, row.items())), rows)


def _dataset(node: Node, datasets: dict[str, DataSet]) -> Node:
    if not isinstance(node.value, str) or node.value not in datasets:
        known = did_you_mean(node.plain, datasets)
        raise node.fault(f"unknown data set {shown(node.plain)}{known}")
    return plant(datasets[node.value].model_dump(mode="json"), node)


#: Fields of a built-in data set that a recipe may not change under its name, as published numbers need them.
FIXED_BY_NAME = {"image_size", "n_max", "orientation", "profile", "short_side", "source", "streamed"}


def read_datasets(section: Node | None) -> dict[str, DataSet]:
    """Return the built-in data sets, with the recipe's own and its changes to them."""
    own = section.mapping if section else {}

    def define(name: str) -> DataSet:
        dataset = parse(DataSet, _with_base((name,), own))
        if "image_size" not in dataset.model_fields_set:
            raise own[name].fault("needs image_size, the pixels to which images are resized: 32, for example")
        return dataset

    return DATASETS | {dataset.name: dataset for dataset in each(define, own)}


def _with_base(chain: tuple[str, ...], own: dict[str, Node]) -> Node:
    """Return the last data set of a chain of bases, merged over its own base."""
    name = chain[-1]
    node = own[name]
    check_name(name, node)
    fields = dict(node.mapping)
    if "name" in fields:
        raise fields["name"].fault("the key is the name; leave this out")
    base = fields.pop("base", None)
    if base is None:
        under = plant(DATASETS[name].model_dump(mode="json") if name in DATASETS else {}, node)
        for key in fields.keys() & under.mapping.keys() & FIXED_BY_NAME:
            if fields[key].plain != under.mapping[key].plain:
                kept = shown(under.mapping[key].plain)
                remedy = f"give a changed one another name, with base: {name}"
                raise fields[key].fault(f"{name} has {kept}; {remedy}")
    else:
        under = _base(base, chain, own)
    return merge(merge(under, plant({"name": name}, node)), replace(node, value=fields))


def _base(node: Node, chain: tuple[str, ...], own: dict[str, Node]) -> Node:
    """Return the base of a chain's last data set: a built-in one, or another one of the recipe."""
    start = str(node.plain)
    if start in DATASETS:
        tree = plant(DATASETS[start].model_dump(mode="json"), node)
    elif start not in own:
        near = did_you_mean(start, own.keys() | DATASETS.keys())
        raise node.fault(f"unknown data set {shown(start)}{near}")
    elif start in chain:
        raise node.fault(f"a loop: {' -> '.join((*chain, start))}")
    elif len(chain) > DEEPEST:
        raise node.fault(f"bases nest more than {DEEPEST} deep")
    else:
        tree = _with_base((*chain, start), own)
    if start == chain[-1]:
        return tree
    # two data sets with the same title could not be distinguished
    return replace(tree, value={key: child for key, child in tree.value.items() if key != "title"})
