"""The sections of a recipe, and how pydantic's errors become lines with a place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from bench.cell import Frozen
from bench.errors import BenchError, did_you_mean
from bench.recipe.tree import Key, Node, shown

_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Sections(Frozen):
    """A whole recipe, its includes resolved."""

    methods: dict[str, Any]
    grid: dict[str, Any]
    title: str = ""
    mode: Literal["fast", "exact"] = "fast"
    zip: list[dict[str, Any]] = Field([])
    datasets: dict[str, dict[str, Any]] = Field({})
    protocol: dict[str, Any] = Field({})
    overrides: list[dict[str, Any]] = Field([])


class MethodSection(Frozen):
    """One label of `methods:`; its protocol is a part of one, merged later and judged then."""

    method: str | None = None
    from_: str | tuple[str, ...] | None = Field(None, alias="from")
    params: dict[str, Any] = Field({})
    protocol: dict[str, Any] = Field({})


class OverrideSection(Frozen):
    """One entry of `overrides:`."""

    match: dict[str, Any]
    protocol: dict[str, Any] = Field({})
    params: dict[str, Any] = Field({})


def parse(model: type[_Model], node: Node, unknown: str = "unknown key") -> _Model:
    """Build a model from a tree.

    Raises:
        BenchError: all that is wrong, one line each; `unknown` is said of a key that does not exist.
    """
    try:
        # JSON because strict pydantic takes a list for a tuple and 1 for 1.0 only from there
        return model.model_validate_json(json.dumps(node.plain))
    except ValidationError as error:
        raise BenchError(_lines(_told(error, model, node, unknown))) from None


def each(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Apply a function to all items; the errors of all of them are raised as one, a line each."""
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


def _told(error: ValidationError, model: type[BaseModel], node: Node, unknown: str) -> Iterator[str]:
    """Say each error at its place; what the members of a union expect becomes one sentence."""
    expected: dict[int, tuple[Node, list[str]]] = {}
    for detail in error.errors():
        path, kind, message = detail["loc"], detail["type"], detail["msg"]
        at = node.find(path)
        if kind == "extra_forbidden":
            known = did_you_mean(path[-1], _names(model, path[:-1]))
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
        yield str(at.fault(f"should be {wanted}, got {shown(at.plain)}{remedy}"))


def _names(model: Any, path: tuple[Key, ...]) -> list[str]:
    """Name the keys of the model that stands at a path inside of another."""
    for key in path:
        kind = model.model_fields[key].annotation
        model = next((member for member in get_args(kind) if hasattr(member, "model_fields")), kind)
    return [field.alias or name for name, field in model.model_fields.items()]
