"""The labels of `methods:`, each a registered method with what the recipe says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from bench import registry
from bench.cell import MethodChoice
from bench.controls import Control, controls
from bench.errors import did_you_mean
from bench.recipe.networks import read_backbone
from bench.recipe.schema import HOMES, MethodSection, each, parse
from bench.recipe.tree import Node, merge, plant, shown


@dataclass(frozen=True)
class Stage:
    """A label: its method, its own changes, the labels it starts from; perhaps its own backbone and card."""

    label: str
    node: Node
    method: registry.MethodSpec
    parents: tuple[str, ...]
    backbone: Node | None = None
    card: str | None = None
    #: Of a control, or of what starts from one: the label it stands for, its name, and what it changes.
    control_of: str | None = None
    control: str = ""
    without: Node | None = None

    @cached_property
    def hyperparameters(self) -> type[BaseModel]:
        """The method's hyper-parameters as a model."""
        return self.method.hyperparameters

    @property
    def changes(self) -> Node:
        """What the label lays over the recipe's protocol; `params` always stands in it."""
        return merge(plant({"params": {}}, self.node), changes(self.node))

    def choose(self, params: Node) -> MethodChoice:
        """Check the hyper-parameters and write out all of them."""
        try:
            _ = self.method.unchanged
        except ValidationError as error:
            detail = error.errors()[0]
            key = ".".join(str(part) for part in detail["loc"])
            raise params.fault(f"method {self.method.name!r}: {key}: {detail['msg']}") from None
        unknown = f"method {self.method.name!r} has no hyper-parameter"
        return self.method.choice(parse(self.hyperparameters, params, unknown))


def changes(node: Node) -> Node:
    """Keep `protocol` and `params` of an entry."""
    kept = {key: child for key, child in node.mapping.items() if key in ("protocol", "params")}
    return Node(kept, node.place, node.path)


def with_controls(stages: dict[str, Stage]) -> dict[str, Stage]:
    """Add each label's controls, "label-control", and for each what starts from the label again, from it.

    A control of another method has those hyper-parameters of the label that it knows, and the label's card.

    Raises:
        BenchError: a label has the name already.
    """
    made: dict[str, Stage] = {}

    def of(stage: Stage) -> dict[str, Stage]:
        """Return the controls of a label by their names, its parents' among them."""
        own = {
            name: replace(
                stage,
                method=registry.find(control.method) if control.method else stage.method,
                without=plant(_said(control), stage.node),
            )
            for name, control in controls().get(stage.method.name, {}).items()
        }
        retrained = {
            name: replace(stage, parents=tuple(f"{p}-{name}" if p == parent else p for p in stage.parents))
            for parent in stage.parents
            for name in of(stages[parent])
        }
        return {
            name: replace(one, label=f"{stage.label}-{name}", control_of=stage.label, control=name)
            for name, one in (retrained | own).items()
        }

    for stage in stages.values():
        for control in of(stage).values():
            if control.label in stages:
                raise stages[control.label].node.fault(
                    f"is what a control of {stage.label!r} is called; rename"
                )
            made[control.label] = control
    return stages | made


def _said(control: Control) -> dict[str, Any]:
    said = control.model_dump(mode="json")
    return {key: said[key] for key in ("params", "protocol")}


def read_stages(section: Node) -> dict[str, Stage]:
    """Read `methods:`; every name is registered, every `from:` leads to a label and none in a circle."""
    known = registry.methods()
    labels = section.mapping

    def read(label: str) -> Stage:
        node = labels[label]
        check_name(label, node)
        said = parse(MethodSection, node, homes=HOMES | _hyperparameters(label, node, known))
        name = label if said.method is None else said.method
        if name not in known:
            near = f"{did_you_mean(name, known)}; methods of your own are named by --methods FILE"
            raise node.find(("method",)).fault(f"unknown method {shown(name)}{near}")
        build = known[name].build
        parents = _parents(said)
        if not parents and build.needs_parent:
            raise node.fault(f"{name!r} starts from a trained cell; name its label with from:")
        if parents and not build.needs_parent:
            raise node.find(("from",)).fault(f"{name!r} starts from nothing; leave from: out")
        if len(parents) > 1 and not build.several_parents:
            raise node.find(("from",)).fault(f"{name!r} starts from one cell; name one label")
        for parent in parents:
            if parent not in labels:
                near = did_you_mean(parent, labels)
                raise node.find(("from",)).fault(f"unknown label {shown(parent)}{near}")
        backbone = None if said.backbone is None else read_backbone(node.find(("backbone",)))
        return Stage(label, node, known[name], parents, backbone, said.card)

    if not labels:
        raise section.fault("names no method")
    stages = {stage.label: stage for stage in each(read, labels)}
    each(lambda stage: _check_ancestors(stage, stages), stages.values())
    return stages


def _hyperparameters(label: str, node: Node, known: Mapping[str, registry.MethodSpec]) -> dict[str, str]:
    """Return where hyper-parameters of a label's method belong that stand beside `params`."""
    said = node.value.get("method") if isinstance(node.value, dict) else None
    name = label if said is None else said.plain
    entry = known.get(name) if isinstance(name, str) else None
    return {key: f"params: {{{key}: ...}}" for key in (entry.hyperparameters.model_fields if entry else ())}


def check_name(name: str, node: Node) -> None:
    """Refuse a label or data set name that a command line or a directory name could not carry."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}", name):
        raise node.fault("a name is 1 to 64 letters, digits, _, + and -, no dot, and not - first")


def _parents(said: MethodSection) -> tuple[str, ...]:
    if said.from_ is None:
        return ()
    return (said.from_,) if isinstance(said.from_, str) else said.from_


def _check_ancestors(stage: Stage, stages: dict[str, Stage], chain: tuple[str, ...] = ()) -> None:
    chain = (*chain, stage.label)
    for parent in stage.parents:
        if parent in chain:
            first = stages[chain[0]]
            raise first.node.find(("from",)).fault(f"a loop: {' -> '.join((*chain, parent))}")
        _check_ancestors(stages[parent], stages, chain)
