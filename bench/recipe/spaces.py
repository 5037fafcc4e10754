"""The space of each method of a search: the recipe's ranges, and settings drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from bench.cell import Cell, Frozen, HeldOut
from bench.errors import did_you_mean
from bench.recipe.methods import LabelSpec
from bench.recipe.schema import each, parse
from bench.recipe.tree import Node, merge, nest, plant, shown
from bench.result import series
from bench.search.space import Range, draws

#: The largest budget.
MOST_DRAWS = 1000

Budget = Annotated[int, Field(ge=1, le=MOST_DRAWS)]
Seed = Annotated[int, Field(ge=0)]

#: A setting: values by their dotted keys.
Setting = dict[str, Any]


class SearchSection(Frozen):
    """`search:`; its ranges are parsed one by one."""

    budgets: Budget | tuple[Budget, ...]
    held_out: HeldOut
    seed: Seed | tuple[Seed, ...] = 0
    space: dict[str, Any] = Field({})
    methods: dict[str, dict[str, Any]] = Field({})

    @field_validator("budgets", "seed")
    @classmethod
    def _rise(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, tuple) and (not value or list(value) != sorted(set(value))):
            raise ValueError("should be a number, or a list of rising ones")
        return value

    @property
    def ks(self) -> tuple[int, ...]:
        """The budgets as a tuple."""
        return _tuple(self.budgets)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The trials' seeds as a tuple."""
        return _tuple(self.seed)


class Spaces:
    """The ranges of all labels, each with its node."""

    def __init__(self, section: Node, specs: Mapping[str, LabelSpec]) -> None:
        self.section, self.specs = section, specs
        shared, own = (
            {} if (n := section.mapping.get(k)) is None else n.mapping for k in ("space", "methods")
        )
        for label, node in own.items():
            if label not in specs:
                raise node.fault(f"unknown label {shown(label)}{did_you_mean(label, specs)}")
        each(self._check_shared, shared.items())

        def ranges(label: str) -> dict[str, tuple[Node, Range]]:
            nodes = {key: node for key, node in shared.items() if self._has(label, key)}
            nodes |= own[label].mapping if label in own else {}
            kept = [(key, node) for key, node in nodes.items() if node.value is not None]
            return dict(each(lambda item: (item[0], (item[1], self._range(label, *item))), kept))

        self.ranges = dict(each(lambda label: (label, ranges(label)), specs))

    def draw(self, label: str, cell: Cell, count: int) -> list[Setting]:
        """Return settings of a label: that of its cell, then others, for which the cell is the seed."""
        ranges = self.ranges[label]
        middle = dict(each(lambda item: (item[0], self._middle(label, cell, *item)), ranges.items()))
        try:
            return draws({key: one for key, (_, one) in ranges.items()}, middle, count, series(cell))
        except ValueError as error:
            raise self.section.fault(f"the space of {label!r} {error}") from None

    def changes(self, label: str, setting: Setting) -> Node:
        """Return a setting as changes to a cell, each value with the location of its range."""
        tree = plant({}, self.section)
        for key, value in setting.items():
            tree = merge(tree, nest(tuple(key.split(".")), plant(value, self.ranges[label][key][0])))
        return tree

    def _check_shared(self, item: tuple[str, Node]) -> None:
        key, node = item
        if not any(self._has(label, key) for label in self.specs):
            raise node.fault("no method here has it; remove it")

    def _has(self, label: str, key: str) -> bool:
        first, _, rest = key.partition(".")
        return first != "params" or rest in self.specs[label].hyperparameters.model_fields

    def _range(self, label: str, key: str, node: Node) -> Range:
        first, _, rest = key.partition(".")
        if first not in ("protocol", "params") or not all(key.split(".")) or not rest:
            raise node.fault("a key is protocol.NAME or params.NAME, as in protocol.optimizer.lr")
        if not self._has(label, key):
            known = self.specs[label].hyperparameters.model_fields
            raise node.fault(f"{label!r} has no hyper-parameter {shown(rest)}{did_you_mean(rest, known)}")
        return parse(Range, node)

    def _middle(self, label: str, cell: Cell, key: str, located: tuple[Node, Range]) -> Any:
        node, range_ = located
        value = _value(cell, key, node)
        try:
            range_.check(value)
        except ValueError as error:
            raise node.fault(f"{label}: {error}") from None
        return value


def _value(cell: Cell, key: str, node: Node) -> Any:
    """Return a cell's value for a dotted key."""
    first, *steps = key.split(".")
    found: Any = cell.protocol.model_dump(mode="json") if first == "protocol" else cell.method.params
    for i, step in enumerate(steps):
        if not isinstance(found, dict):
            parent = ".".join([first, *steps[:i]])
            raise node.fault(f"the recipe has no {parent} to search in; give it one, or remove the key")
        if step not in found:
            raise node.fault(f"unknown key {shown(step)}{did_you_mean(step, found)}")
        found = found[step]
    if isinstance(found, dict):
        raise node.fault(f"is a mapping; name a key in it{did_you_mean('', found)}")
    return list(found) if isinstance(found, tuple) else found


def _tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
