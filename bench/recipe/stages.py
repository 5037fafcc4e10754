"""The labels of `methods:`, each a registered method with what the recipe says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ValidationError

from bench import registry
from bench.cell import MethodChoice
from bench.errors import did_you_mean
from bench.recipe.schema import MethodSection, each, parse
from bench.recipe.tree import Node, merge, plant, shown


@dataclass(frozen=True)
class Stage:
    """A label: its method, its own changes to `protocol` and `params`, the labels it starts from."""

    label: str
    node: Node
    method: registry.Entry
    parents: tuple[str, ...]

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
        name = self.method.name
        given = parse(self.hyperparameters, params, f"method {name!r} has no hyper-parameter")
        try:
            return self.method.choose(**given.model_dump())
        except ValidationError as error:
            detail = error.errors()[0]
            key = ".".join(str(part) for part in detail["loc"])
            raise params.fault(f"method {name!r}: {key}: {detail['msg']}") from None


def changes(node: Node) -> Node:
    """Keep `protocol` and `params` of an entry."""
    kept = {key: child for key, child in node.mapping.items() if key in ("protocol", "params")}
    return Node(kept, node.place, node.path)


def read_stages(section: Node) -> dict[str, Stage]:
    """Read `methods:`; every name is registered, every `from:` leads to a label and none in a circle."""
    known = registry.methods()
    labels = section.mapping

    def read(label: str) -> Stage:
        node = labels[label]
        check_name(label, node)
        said = parse(MethodSection, node)
        name = label if said.method is None else said.method
        if name not in known:
            near = did_you_mean(name, known)
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
        return Stage(label, node, known[name], parents)

    if not labels:
        raise section.fault("names no method")
    stages = {stage.label: stage for stage in each(read, labels)}
    each(lambda stage: _check_ancestors(stage, stages), stages.values())
    return stages


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
