"""`methods:` of a recipe: labels, each a registered method with the recipe's changes to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from pydantic import BaseModel, ValidationError

from bench import registry
from bench.cell import MethodChoice
from bench.controls import controls
from bench.errors import did_you_mean
from bench.recipe.networks import read_backbone
from bench.recipe.schema import HOMES, MethodSection, each, parse
from bench.recipe.tree import Node, merge, plant, shown


@dataclass(frozen=True)
class LabelSpec:
    """A label of a recipe, its registered method and the recipe's changes to it.

    Attributes:
        parents: the labels that it starts from.
        backbone, card: those of the label alone, if it has any.
        control_of, control, without: of a control, or of a label that starts from one: the whole method's
            label, the control's name, and its changes.
    """

    label: str
    node: Node
    method: registry.MethodSpec
    parents: tuple[str, ...]
    backbone: Node | None = None
    card: str | None = None
    control_of: str | None = None
    control: str = ""
    without: Node | None = None

    @cached_property
    def hyperparameters(self) -> type[BaseModel]:
        """The method's hyper-parameters as a model."""
        return self.method.hyperparameters

    @property
    def changes(self) -> Node:
        """`protocol` and `params` of the label; `params` is always there."""
        return merge(plant({"params": {}}, self.node), changes(self.node))

    def choose(self, params: Node) -> MethodChoice:
        """Validate the hyper-parameters and return the method with all of them."""
        try:
            _ = self.method.unchanged
        except ValidationError as error:
            detail = error.errors()[0]
            key = ".".join(str(part) for part in detail["loc"])
            raise params.fault(f"method {self.method.name!r}: {key}: {detail['msg']}") from None
        unknown = f"method {self.method.name!r} has no hyper-parameter"
        return self.method.choice(parse(self.hyperparameters, params, unknown))


def changes(node: Node) -> Node:
    """Keep `protocol` and `params` of a section."""
    kept = {key: child for key, child in node.mapping.items() if key in ("protocol", "params")}
    return Node(kept, node.location, node.path)


def with_controls(specs: dict[str, LabelSpec]) -> dict[str, LabelSpec]:
    """Add the controls of each label as "label-control"; a label that starts from it gets a copy for each.

    A control of another method has the label's card, and those of its hyper-parameters that the method has.

    Raises:
        BenchError: a label has the name already.
    """
    made: dict[str, LabelSpec] = {}

    def of(spec: LabelSpec) -> dict[str, LabelSpec]:
        """Return the controls of a label by name, with those of its parents."""
        own = {
            name: replace(
                spec,
                method=registry.find(control.method) if control.method else spec.method,
                without=plant(control.model_dump(mode="json", include={"params", "protocol"}), spec.node),
            )
            for name, control in controls().get(spec.method.name, {}).items()
        }
        retrained = {
            name: replace(spec, parents=tuple(f"{p}-{name}" if p == parent else p for p in spec.parents))
            for parent in spec.parents
            for name in of(specs[parent])
        }
        return {
            name: replace(one, label=f"{spec.label}-{name}", control_of=spec.label, control=name)
            for name, one in (retrained | own).items()
        }

    for spec in specs.values():
        for control in of(spec).values():
            if control.label in specs:
                raise specs[control.label].node.fault(
                    f"is the name of a control of {spec.label!r}; rename this label"
                )
            made[control.label] = control
    return specs | made


def read_methods(section: Node) -> dict[str, LabelSpec]:
    """Read `methods:` by label; check that methods are registered and that `from:` makes no loop."""
    known = registry.methods()
    labels = section.mapping

    def read(label: str) -> LabelSpec:
        node = labels[label]
        check_name(label, node)
        own = parse(MethodSection, node, homes=HOMES | _hyperparameters(label, node, known))
        name = label if own.method is None else own.method
        if name not in known:
            near = f"{did_you_mean(name, known)}; give your own methods with --methods FILE"
            raise node.find(("method",)).fault(f"unknown method {shown(name)}{near}")
        build = known[name].build
        parents = (own.from_,) if isinstance(own.from_, str) else own.from_ or ()
        if not parents and build.needs_parent:
            raise node.fault(f"{name!r} starts from a trained cell; name its label with from:")
        if parents and not build.needs_parent:
            raise node.find(("from",)).fault(f"{name!r} does not start from another cell; leave from: out")
        if len(parents) > 1 and not build.several_parents:
            raise node.find(("from",)).fault(f"{name!r} starts from one cell; name one label")
        for parent in parents:
            if parent not in labels:
                near = did_you_mean(parent, labels)
                raise node.find(("from",)).fault(f"unknown label {shown(parent)}{near}")
        backbone = None if own.backbone is None else read_backbone(node.find(("backbone",)))
        return LabelSpec(label, node, known[name], parents, backbone, own.card)

    if not labels:
        raise section.fault("names no method")
    specs = {spec.label: spec for spec in each(read, labels)}
    each(lambda spec: _check_ancestors(spec, specs), specs.values())
    return specs


def _hyperparameters(label: str, node: Node, known: Mapping[str, registry.MethodSpec]) -> dict[str, str]:
    """Return where hyper-parameters of a label's method belong if they are written beside `params`."""
    method = node.value.get("method") if isinstance(node.value, dict) else None
    name = label if method is None else method.plain
    found = known.get(name) if isinstance(name, str) else None
    return {key: f"params: {{{key}: ...}}" for key in (found.hyperparameters.model_fields if found else ())}


def check_name(name: str, node: Node) -> None:
    """Refuse a label or data set name that is unfit for a command line or a directory name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}", name):
        raise node.fault("a name is 1 to 64 letters, digits, _, + and -, no dot, and not - first")


def _check_ancestors(spec: LabelSpec, specs: dict[str, LabelSpec], chain: tuple[str, ...] = ()) -> None:
    chain = (*chain, spec.label)
    for parent in spec.parents:
        if parent in chain:
            first = specs[chain[0]]
            raise first.node.find(("from",)).fault(f"a loop: {' -> '.join((*chain, parent))}")
        _check_ancestors(specs[parent], specs, chain)
