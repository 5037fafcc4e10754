"""The sections of a recipe, and pydantic's errors as lines with a location."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from bench.cards import NO_CARD
from bench.cell import Frozen, Protocol
from bench.errors import BenchError, did_you_mean
from bench.recipe.tree import Key, Node, shown

_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Sections(Frozen):
    """A whole recipe with its includes."""

    methods: dict[str, Any]
    grid: dict[str, Any]
    title: str = ""
    mode: Literal["fast", "exact"] = "fast"
    card: str = NO_CARD
    controls: bool = False
    log: str | tuple[str, ...] = ()
    zip: list[dict[str, Any]] = Field([])
    datasets: dict[str, dict[str, Any]] = Field({})
    protocol: dict[str, Any] = Field({})
    overrides: list[dict[str, Any]] = Field([])
    search: dict[str, Any] | None = None


class MethodSection(Frozen):
    """One label of `methods:`; its `protocol` is only validated after merging.

    `backbone` replaces that of the grid, and `card` that of the recipe.
    """

    method: str | None = None
    card: str | None = None
    from_: str | tuple[str, ...] | None = Field(None, alias="from")
    backbone: Any = None
    params: dict[str, Any] = Field({})
    protocol: dict[str, Any] = Field({})


class OverrideSection(Frozen):
    """One item of `overrides:`."""

    match: dict[str, Any]
    protocol: dict[str, Any] = Field({})
    params: dict[str, Any] = Field({})


def _homes(model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    """Yield each key of a section and of the sections in it, with its whole path."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _homes(kind, f"{path}.{name}")
        elif name != "name":
            yield name, f"{path}.{name}"


#: Keys that are often written at another level, and where they belong.
HOMES = dict(_homes(Protocol, "protocol")) | {
    key: f"grid.{key}"
    for key in ("dataset", "imbalance_factor", "backbone", "seed", "split_seed", "class_order", "label_noise")
}


def parse(
    model: type[_Model], node: Node, unknown: str = "unknown key", homes: Mapping[str, str] = HOMES
) -> _Model:
    """Build a model from a tree.

    Args:
        unknown: the message for a key that does not exist.
        homes: where such a key may belong.

    Raises:
        BenchError: all mistakes, one a line.
    """
    try:
        # JSON because strict pydantic takes a list for a tuple and 1 for 1.0 only from there
        return model.model_validate_json(json.dumps(node.plain))
    except ValidationError as error:
        raise BenchError(_lines(_messages(error, model, node, unknown, homes))) from None


def each(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Apply a function to all items, and raise the errors of all of them as one, a line each."""
    results, faults = [], []
    for item in items:
        try:
            results.append(function(item))
        except BenchError as error:
            faults += str(error).split("\n")
    if faults:
        raise BenchError(_lines(faults))
    return results


def _lines(faults: Iterable[str]) -> str:
    return "\n".join(dict.fromkeys(faults))


_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "none_required": "null",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}


def _messages(
    error: ValidationError, model: type[BaseModel], node: Node, unknown: str, homes: Mapping[str, str]
) -> Iterator[str]:
    """Yield each error with its location; what the members of a union expect becomes one sentence."""
    expected: dict[int, tuple[Node, list[str]]] = {}
    for detail in error.errors():
        path, kind, message = detail["loc"], detail["type"], detail["msg"]
        at = node.find(path)
        if kind == "extra_forbidden":
            home = homes.get(str(path[-1]))
            known = f"; write it as {home}" if home else did_you_mean(path[-1], _names(model, path[:-1]))
            yield str(at.fault(f"{unknown} {shown(path[-1])}{known}"))
        elif kind == "missing":
            yield str(at.fault(f"needs {path[-1]!r}"))
        elif message.startswith("Input should "):
            wanted = _EXPECTED.get(kind, message.removeprefix("Input should ").removeprefix("be "))
            expected.setdefault(id(at), (at, []))[1].append(wanted)
        else:
            yield str(at.fault(message.removeprefix("Value error, ")))
    for at, kinds in expected.values():
        wanted = " or ".join(dict.fromkeys(kinds))
        remedy = "; write {} for an empty one" if at.value is None and wanted == "a mapping" else ""
        if at.path[-1:] == ("imbalance_factor",) and isinstance(at.plain, float) and 0 < at.plain < 1:
            remedy = f"; it is the largest class over the smallest: did you mean {1 / at.plain:g}?"
        yield str(at.fault(f"should be {wanted}, got {shown(at.plain)}{remedy}"))


def _names(model: Any, path: tuple[Key, ...]) -> list[str]:
    """Return the keys of the model at a path inside another one."""
    for key in path:
        kind = model.model_fields[key].annotation
        model = next((member for member in get_args(kind) if hasattr(member, "model_fields")), kind)
    return [field.alias or name for name, field in model.model_fields.items()]
