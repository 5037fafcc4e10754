"""Controls: the same training without one part of a method, to show what the part adds.

They are written in `methods/controls.yaml`, read without torch; a recipe uses them with `controls: true`. A
control is never a published method, even if it has a method's class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from bench.cell import Cell, Frozen, Name, Param
from bench.errors import BenchError

FILE = Path(__file__).parents[1] / "methods" / "controls.yaml"


class Control(Frozen):
    """What differs from the method: another method, hyper-parameters, or parts of the protocol."""

    method: Name | None = None
    params: dict[str, Param] = Field({})
    protocol: dict[str, Any] = Field({})


_FILE = TypeAdapter(dict[Name, dict[Name, Control]])


@cache
def controls() -> dict[str, dict[str, Control]]:
    """Read all controls, by method and name.

    Raises:
        BenchError: the file is malformed.
    """
    try:
        return _FILE.validate_json(json.dumps(yaml.safe_load(FILE.read_text(encoding="utf-8"))))
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise BenchError(f"{FILE}: {key}: {detail['msg']}") from None


def control_named(method: str, params: Mapping[str, Any], views: tuple[str, ...] = ()) -> str | None:
    """Return the name of the control of the same class that was trained, None if it was the whole method.

    Args:
        params: all its hyper-parameters.
        views: the protocol's, if it names any.
    """

    def matches(control: Control) -> bool:
        wanted = control.protocol.get("views", list(views))
        same = all(key in params and _same(params[key], value) for key, value in control.params.items())
        return control.method is None and list(views) == wanted and same

    found = {name: one for name, one in controls().get(method, {}).items() if matches(one)}
    # without two parts is also without one of them: the control that changes most is meant
    return max(found, key=lambda name: len(found[name].params), default=None)


def control_in(cell: Cell) -> str | None:
    """Return the name of the control of the same class that a cell trains, None if it is the whole method."""
    return control_named(cell.method.name, cell.method.params, cell.protocol.views)


def _same(one: Any, other: Any) -> bool:
    """Compare values; a tuple may have become a list in JSON."""
    return list(one or ()) == list(other) if isinstance(other, tuple) else bool(one == other)
