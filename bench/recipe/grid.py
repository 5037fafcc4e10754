"""Expand a recipe's tree to cells.

A cell is merged from trees, each of which overrides the ones before: the authors' card, if the recipe uses
it; the recipe's protocol; the axes; the label's `protocol` and `params`; the overrides in their order; the
draw of a search; what a control changes. So a label that sets a value keeps it along an axis of that value.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from bench.cards import NO_CARD, Card, card_of, cards_of
from bench.cell import Cell
from bench.errors import did_you_mean
from bench.recipe.axes import TAIL_AXES, Values, read_points
from bench.recipe.methods import LabelSpec, changes, read_methods, with_controls
from bench.recipe.schema import OverrideSection, each, parse
from bench.recipe.tree import Key, Node, merge, nest, plant, shown

#: What an override can match.
MATCHED = ("label", "method", "dataset", "imbalance_factor", "backbone", "seed")


def expand(root: Node) -> list[tuple[str, Cell, dict[str, str]]]:
    """Return label, cell and run ids of its controls for every cell of a recipe with valid sections.

    A label whose cell does not change along an axis has it once. A control whose cell another label has
    already is left out.

    Raises:
        BenchError: something is unknown, of the wrong kind or without effect, or two labels have one cell.
    """
    return Expansion(root).cells()


#: The values of a cell that an override can match, by key; a comparable copy of a data set also has the
#: original's name.
Matchable = dict[str, set[str]]


@dataclass(frozen=True)
class _Override:
    """Changes to the cells that have one of the wanted values of each key."""

    wanted: dict[str, set[str]]
    changes: Node

    def applies(self, matchable: Matchable) -> bool:
        return all(matchable[key] & values for key, values in self.wanted.items())


class Expansion:
    """The cells of all labels at all points; a cell is made once, however many start from it.

    Attributes:
        pairs: index of a point and a label, of all cells in order.
        drawn: the draw of a search for some of them, which overrides the recipe.
    """

    def __init__(self, root: Node) -> None:
        self.specs = read_methods(root.mapping["methods"])
        if "controls" in root.mapping and root.mapping["controls"].plain:
            self.specs = with_controls(self.specs)
        card = root.mapping.get("card")
        self.card = NO_CARD if card is None else str(card.plain)
        self.points = read_points(root, self.specs.values(), self.card != NO_CARD)
        self.pairs = list(itertools.product(range(len(self.points)), self.specs))
        kept = {key: root.mapping[key] for key in ("mode", "protocol") if key in root.mapping}
        self.base = merge(plant({"protocol": {}}, root.mapping["grid"]), replace(root, value=kept))
        self.cards = dict(zip(self.pairs, each(lambda pair: self._card_of(*pair), self.pairs), strict=True))
        self.matchable = {pair: self._matchable(*pair) for pair in self.pairs}
        overrides = root.mapping.get("overrides")
        self.overrides = each(self._override, overrides.elements if overrides else ())
        self.made: dict[tuple[int, str], Cell] = {}
        self.reached: set[tuple[Key, ...]] = set()
        self.drawn: Mapping[tuple[int, str], Node] = {}

    def under(self, drawn: Mapping[tuple[int, str], Node], points: list[Values] | None = None) -> Expansion:
        """Return the expansion with a draw, and perhaps other points of the same indices."""
        other = copy(self)
        other.drawn, other.points, other.made = drawn, self.points if points is None else points, {}
        return other

    def cells(self) -> list[tuple[str, Cell, dict[str, str]]]:
        cells = each(lambda pair: self.cell(*pair), self.pairs)
        each(self._check_reached, (item for point in self.points for item in point.items()))
        found: dict[str, tuple[int, str]] = {}
        for (i, label), cell in zip(self.pairs, cells, strict=True):
            _, first = found.setdefault(cell.id, (i, label))
            if first != label and self.specs[label].control_of is None:
                raise self.specs[label].node.fault(
                    f"{label!r} and {first!r} are the same cell ({cell.run_id}); drop one of them"
                )
        return [(pair[1], self.made[pair], self.controls_of(*pair)) for pair in found.values()]

    def controls_of(self, i: int, label: str) -> dict[str, str]:
        """Return the run ids of a cell's controls by name; all of them have been made."""
        controls = (spec for spec in self.specs.values() if spec.control_of == label)
        runs = {spec.control: self.made[i, spec.label].run_id for spec in controls}
        return {name: run_id for name, run_id in runs.items() if run_id != self.made[i, label].run_id}

    def cell(self, i: int, label: str) -> Cell:
        """Make the cell of a label at a point, with its parents."""
        if (i, label) in self.made:
            return self.made[i, label]
        spec = self.specs[label]
        draft = self._draft(i, spec)
        items = dict(draft.mapping)
        params = items.pop("params")
        if spec.control_of is not None:  # a control may be of another method
            known = spec.hyperparameters.model_fields
            params = replace(params, value={key: v for key, v in params.mapping.items() if key in known})
        method = spec.choose(params)
        items["method"] = plant({"name": method.name}, draft)
        draft = replace(draft, value=items)
        cell = parse(Cell, draft)
        _check_policies(cell, draft)
        _check_schedule(cell, draft, spec)
        parents = tuple(self.cell(i, parent) for parent in spec.parents)
        family = {"parent": parents[0], "others": parents[1:]} if parents else {}
        cell = cell.model_copy(update={"method": method, **family})
        return self.made.setdefault((i, label), cell)

    def _draft(self, i: int, spec: LabelSpec) -> Node:
        """Merge the tree of a cell."""
        point = {
            key: node
            for key, node in self.points[i].items()
            if not key.startswith("params.") or _steps(key)[1] in spec.hyperparameters.model_fields
        }
        draft = merge(self._from_card(i, spec), self.base)
        # a key before the keys inside it: "dataset" before "split_seed"
        for key, node in sorted(point.items(), key=lambda item: _steps(item[0])):
            draft = merge(draft, nest(_steps(key), node))
        if spec.backbone is not None:
            draft = replace(draft, value={**draft.mapping, "backbone": spec.backbone})
        draft = merge(draft, spec.changes)
        for override in self.overrides:
            if override.applies(self.matchable[i, spec.label]):
                draft = merge(draft, override.changes)
        if drawn := self.drawn.get((i, self._origin(spec).label)):
            draft = merge(draft, drawn)
        if spec.without is not None:
            draft = merge(draft, spec.without)
        self.reached |= {n.path for k, n in point.items() if draft.find(_steps(k)).path == n.path}
        return draft

    def _card_of(self, i: int, label: str) -> Card | None:
        spec, point = self.specs[label], self.points[i]
        name = spec.card or self.card
        if name == NO_CARD:
            if spec.backbone is None and "backbone" not in point:
                raise spec.node.fault("needs a backbone: here, or in grid:")
            return None
        dataset, factor = point["dataset"].plain, point["imbalance_factor"].plain
        data, method = dataset["copy_of"] or dataset["name"], self._origin(spec).method.name
        if (card := card_of(method, data, factor, name)) is None:
            known = {(card.name, d) for card in cards_of(method) for d in card.data}
            listed = ", ".join(f"{name} ({d})" for name, d in sorted(known)) or "none"
            raise spec.node.fault(
                f"no card {shown(name)} of {method!r} for {data} at {shown(factor)}; there are: {listed}; "
                f"write card: {NO_CARD} here"
            )
        return card

    def _origin(self, spec: LabelSpec) -> LabelSpec:
        """Return the method of which a control leaves a part out; any other label's own method."""
        return self.specs[spec.control_of or spec.label]

    def _from_card(self, i: int, spec: LabelSpec) -> Node:
        """Return the tree of a cell's card, located at the label."""
        card = self.cards[i, spec.label]
        if card is None:
            return plant({}, spec.node)
        content = card.model_dump(mode="json")
        network = {} if "backbone" in self.points[i] else {"backbone": content["network"]}
        return plant(network | {key: content[key] for key in ("protocol", "params")}, spec.node)

    def _matchable(self, i: int, label: str) -> Matchable:
        """Return the values that overrides can match of a label at a point."""
        point, spec, card = self.points[i], self.specs[label], self.cards[i, label]
        if network := spec.backbone or point.get("backbone"):
            backbone = network.mapping["name"].plain
        else:
            assert card is not None
            backbone = card.network.name
        origin = self._origin(spec)
        seed = point["seed"].plain if "seed" in point else Cell.model_fields["seed"].default
        dataset = {key: node.plain for key, node in point["dataset"].mapping.items()}
        values = {
            "label": [origin.label],
            "method": [origin.method.name],
            "dataset": [dataset["name"], *([dataset["copy_of"]] if dataset.get("comparable") else [])],
            "imbalance_factor": [point["imbalance_factor"].plain],
            "backbone": [backbone],
            "seed": [seed],
        }
        return {key: {_mark(value) for value in known} for key, known in values.items()}

    def _check_reached(self, item: tuple[str, Node]) -> None:
        key, node = item
        if node.path not in self.reached and not isinstance(node.value, dict):
            raise node.fault(f"changes no cell: every label that has {key} sets it itself")

    def _override(self, node: Node) -> _Override:
        parse(OverrideSection, node)
        match = node.mapping["match"]
        if not match.mapping:
            raise match.fault("matches all cells; what is for all of them belongs in protocol:")
        wanted = dict(each(self._wanted, match.mapping.items()))
        override = _Override(wanted, changes(node))
        if not override.changes.mapping:
            raise node.fault("changes nothing; give it protocol: or params:")
        if not any(override.applies(matchable) for matchable in self.matchable.values()):
            raise match.fault("matches no cell of the grid")
        return override

    def _wanted(self, item: tuple[str, Node]) -> tuple[str, set[str]]:
        key, node = item
        if key not in MATCHED:
            raise node.fault(f"unknown key {shown(key)}{did_you_mean(key, MATCHED)}")
        known = {mark for matchable in self.matchable.values() for mark in matchable[key]}
        for value in node.elements:
            if _mark(value.plain) not in known:
                near = did_you_mean(value.plain, [mark.strip('"') for mark in known])
                if isinstance(value.plain, str) and value.plain in known:
                    near = f", but {value.plain}; remove the quotes"
                raise value.fault(f"no cell of the grid has {key} {shown(value.plain)}{near}")
        return key, {_mark(value.plain) for value in node.elements}


def _mark(value: Any) -> str:
    """Write a value as text: equal for 100 and 100.0, different for 1, "1" and true."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _steps(key: str) -> tuple[str, ...]:
    return ("dataset", key) if key in TAIL_AXES else tuple(key.split("."))


def _check_schedule(cell: Cell, draft: Node, spec: LabelSpec) -> None:
    """Refuse a schedule with a part after the last epoch."""
    epochs, schedule = cell.protocol.epochs, cell.protocol.schedule
    if not spec.method.build.trains:
        return
    if not epochs:
        raise draft.find(("protocol", "epochs")).fault("0 epochs train nothing; write at least 1")
    late = {"milestones": [m for m in schedule.milestones if m >= epochs]}
    if schedule.warmup_epochs > epochs:
        late["warmup_epochs"] = [schedule.warmup_epochs]
    for key, values in late.items():
        if values:
            at = draft.find(("protocol", "schedule", key))
            raise at.fault(f"{', '.join(map(str, values))} of {epochs} epochs is never reached")


def _check_policies(cell: Cell, draft: Node) -> None:
    from bench.data.augment import POLICIES  # imports torch
    from bench.data.feed.framing import NAMES
    from bench.data.feed.samplers import SAMPLERS

    protocol = cell.protocol
    policies = NAMES if cell.dataset.on_disk else tuple(POLICIES)
    named = {
        "augmentation": ((protocol.augmentation,), policies),
        "views": (protocol.views, (*policies, "main")),
        "sampler": ((protocol.sampler,) if protocol.sampler else (), SAMPLERS),
    }
    for key, (names, known) in named.items():
        for name in names:
            if name not in known:
                at = draft.find(("protocol", key))
                raise at.fault(f"unknown {key} {shown(name)}{did_you_mean(name, known)}")
