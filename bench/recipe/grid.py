"""Expand a recipe's tree to cells.

A cell in the making is a tree too. What is general lies under what is particular: the authors' card, if the
recipe takes it, then the recipe's protocol, then the axes, then the label's own `protocol` and `params`, then
the overrides in their order, then what a search draws. So a label that sets a value itself keeps it along an
axis of that value.
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
from bench.recipe.axes import OF_THE_TAIL, Point, read_points
from bench.recipe.schema import OverrideSection, each, parse
from bench.recipe.stages import Stage, changes, read_stages, with_controls
from bench.recipe.tree import Key, Node, merge, nest, plant, shown

#: What an override can match.
MATCHED = ("label", "method", "dataset", "imbalance_factor", "backbone", "seed")


def expand(root: Node) -> list[tuple[str, Cell, dict[str, str]]]:
    """Return every point of a recipe whose sections are sound: label, cell, and run ids of its controls.

    A label whose cell does not change along an axis stands there once. A control that another label is too
    stands there under that label.

    Raises:
        BenchError: something is unknown, of the wrong kind, without effect, or there under two labels.
    """
    return Expansion(root).cells()


#: What an override can match of a cell; a comparable copy of a data set goes by the original's name too.
Facts = dict[str, set[str]]


@dataclass(frozen=True)
class _Override:
    """Changes to the cells whose facts are among those wanted."""

    node: Node
    wanted: dict[str, set[str]]
    changes: Node

    def applies(self, facts: Facts) -> bool:
        return all(facts[key] & values for key, values in self.wanted.items())


class Expansion:
    """Labels times points, and the cells they make; a cell is made once, however many start from it.

    Attributes:
        pairs: the number of a point and a label, of all cells in order.
        drawn: what a search draws for some of them, laid over all that the recipe says.
    """

    def __init__(self, root: Node) -> None:
        self.stages = read_stages(root.mapping["methods"])
        if "controls" in root.mapping and root.mapping["controls"].plain:
            self.stages = with_controls(self.stages)
        card = root.mapping.get("card")
        self.card = NO_CARD if card is None else str(card.plain)
        self.points = read_points(root, self.stages.values(), self.card != NO_CARD)
        self.pairs = list(itertools.product(range(len(self.points)), self.stages))
        kept = {key: root.mapping[key] for key in ("mode", "protocol") if key in root.mapping}
        self.base = merge(plant({"protocol": {}}, root.mapping["grid"]), replace(root, value=kept))
        self.cards = dict(zip(self.pairs, each(lambda pair: self._card_of(*pair), self.pairs), strict=True))
        self.facts = {pair: self._facts(*pair) for pair in self.pairs}
        overrides = root.mapping.get("overrides")
        self.overrides = each(self._override, overrides.elements if overrides else ())
        self.made: dict[tuple[int, str], Cell] = {}
        self.reached: set[tuple[Key, ...]] = set()
        self.drawn: Mapping[tuple[int, str], Node] = {}

    def under(self, drawn: Mapping[tuple[int, str], Node], points: list[Point] | None = None) -> Expansion:
        """Return the expansion in which something is drawn, perhaps with other points in these places."""
        other = copy(self)
        other.drawn, other.points, other.made = drawn, self.points if points is None else points, {}
        return other

    def cells(self) -> list[tuple[str, Cell, dict[str, str]]]:
        cells = each(lambda pair: self.cell(*pair), self.pairs)
        each(self._check_reached, (item for point in self.points for item in point.items()))
        found: dict[str, tuple[int, str]] = {}
        for (number, label), cell in zip(self.pairs, cells, strict=True):
            _, first = found.setdefault(cell.id, (number, label))
            if first != label and self.stages[label].control_of is None:
                raise self.stages[label].node.fault(
                    f"{label!r} and {first!r} are the same cell ({cell.run_id}); drop one of them"
                )
        return [(pair[1], self.made[pair], self.controls_of(*pair)) for pair in found.values()]

    def controls_of(self, number: int, label: str) -> dict[str, str]:
        """Return run ids of a cell's controls, all of which are made, by their names."""
        mine = (stage for stage in self.stages.values() if stage.control_of == label)
        runs = {stage.control: self.made[number, stage.label].run_id for stage in mine}
        return {name: run_id for name, run_id in runs.items() if run_id != self.made[number, label].run_id}

    def cell(self, number: int, label: str) -> Cell:
        """Make the cell of a label at a point, and what it starts from."""
        if (number, label) in self.made:
            return self.made[number, label]
        stage = self.stages[label]
        draft = self._draft(number, stage)
        items = dict(draft.mapping)
        params = items.pop("params")
        if stage.control_of is not None:  # of another method, perhaps
            known = stage.hyperparameters.model_fields
            params = replace(params, value={key: v for key, v in params.mapping.items() if key in known})
        method = stage.choose(params)
        items["method"] = plant({"name": method.name}, draft)
        draft = replace(draft, value=items)
        cell = parse(Cell, draft)
        _check_policies(cell, draft)
        _check_schedule(cell, draft, stage)
        parents = tuple(self.cell(number, elder) for elder in stage.parents)
        family = {"parent": parents[0], "others": parents[1:]} if parents else {}
        cell = cell.model_copy(update={"method": method, **family})
        return self.made.setdefault((number, label), cell)

    def _draft(self, number: int, stage: Stage) -> Node:
        point = {
            key: node
            for key, node in self.points[number].items()
            if not key.startswith("params.") or _steps(key)[1] in stage.hyperparameters.model_fields
        }
        draft = merge(self._from_card(number, stage), self.base)
        # the whole before its parts: "dataset" before "split_seed"
        for key, node in sorted(point.items(), key=lambda item: _steps(item[0])):
            draft = merge(draft, nest(_steps(key), node))
        if stage.backbone is not None:
            draft = replace(draft, value={**draft.mapping, "backbone": stage.backbone})
        draft = merge(draft, stage.changes)
        for override in self.overrides:
            if override.applies(self.facts[number, stage.label]):
                draft = merge(draft, override.changes)
        if drawn := self.drawn.get((number, self._origin(stage).label)):
            draft = merge(draft, drawn)
        if stage.without is not None:
            draft = merge(draft, stage.without)
        self.reached |= {n.path for k, n in point.items() if draft.find(_steps(k)).path == n.path}
        return draft

    def _card_of(self, number: int, label: str) -> Card | None:
        stage, point = self.stages[label], self.points[number]
        name = stage.card or self.card
        if name == NO_CARD:
            if stage.backbone is None and "backbone" not in point:
                raise stage.node.fault("needs a backbone: here, or in grid:")
            return None
        dataset, factor = point["dataset"].plain, point["imbalance_factor"].plain
        data, method = dataset["copy_of"] or dataset["name"], self._origin(stage).method.name
        if (card := card_of(method, data, factor, name)) is None:
            known = {(card.name, d) for card in cards_of(method) for d in card.data}
            there = ", ".join(f"{name} ({d})" for name, d in sorted(known)) or "none"
            raise stage.node.fault(
                f"no card {shown(name)} of {method!r} for {data} at {shown(factor)}; there are: {there}; "
                f"say card: {NO_CARD} here"
            )
        return card

    def _origin(self, stage: Stage) -> Stage:
        """Return the label that a control stands for; any other is its own."""
        return self.stages[stage.control_of or stage.label]

    def _from_card(self, number: int, stage: Stage) -> Node:
        """Return what a card says of a cell, as if it stood at the label."""
        card = self.cards[number, stage.label]
        if card is None:
            return plant({}, stage.node)
        said = card.model_dump(mode="json")
        network = {} if "backbone" in self.points[number] else {"backbone": said["network"]}
        return plant(network | {key: said[key] for key in ("protocol", "params")}, stage.node)

    def _facts(self, number: int, label: str) -> Facts:
        """Say what an override can match of a label at a point."""
        point, stage, card = self.points[number], self.stages[label], self.cards[number, label]
        if network := stage.backbone or point.get("backbone"):
            backbone = network.mapping["name"].plain
        else:
            assert card is not None
            backbone = card.network.name
        origin = self._origin(stage)
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
            raise node.fault(f"reaches no cell: whatever has {key} sets it itself")

    def _override(self, node: Node) -> _Override:
        parse(OverrideSection, node)
        match = node.mapping["match"]
        if not match.mapping:
            raise match.fault("matches all; what holds for all cells goes into protocol:")
        wanted = dict(each(self._wanted, match.mapping.items()))
        override = _Override(node, wanted, changes(node))
        if not override.changes.mapping:
            raise node.fault("changes nothing; give it protocol: or params:")
        if not any(override.applies(facts) for facts in self.facts.values()):
            raise match.fault("matches no cell of the grid")
        return override

    def _wanted(self, item: tuple[str, Node]) -> tuple[str, set[str]]:
        key, node = item
        if key not in MATCHED:
            raise node.fault(f"unknown key {shown(key)}{did_you_mean(key, MATCHED)}")
        known = {fact for facts in self.facts.values() for fact in facts[key]}
        for value in node.elements:
            if _mark(value.plain) not in known:
                near = did_you_mean(value.plain, [mark.strip('"') for mark in known])
                if isinstance(value.plain, str) and value.plain in known:
                    near = f", but {value.plain}; take the quotes off"
                raise value.fault(f"no cell of the grid has {key} {shown(value.plain)}{near}")
        return key, {_mark(value.plain) for value in node.elements}


def _mark(value: Any) -> str:
    """Write a value so that 100 and 100.0 are one, and 1, "1" and true are three."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _steps(key: str) -> tuple[str, ...]:
    return ("dataset", key) if key in OF_THE_TAIL else tuple(key.split("."))


def _check_schedule(cell: Cell, draft: Node, stage: Stage) -> None:
    """Refuse a schedule of which a part lies behind the last epoch, where the rate never gets."""
    epochs, schedule = cell.protocol.epochs, cell.protocol.schedule
    if not epochs or not stage.method.build.trains:
        return
    late = {"milestones": [m for m in schedule.milestones if m >= epochs]}
    if schedule.warmup_epochs > epochs:
        late["warmup_epochs"] = [schedule.warmup_epochs]
    for key, values in late.items():
        if values:
            at = draft.find(("protocol", "schedule", key))
            raise at.fault(f"{', '.join(map(str, values))} of {epochs} epochs; the rate never gets there")


def _check_policies(cell: Cell, draft: Node) -> None:
    from bench.data.augment import POLICIES  # it imports torch
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
