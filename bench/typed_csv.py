"""CSV files whose rows are pydantic models; a mistake is reported as ``file:line: column: what is wrong``.

The file is a user's: a row with a mistake is reported and left out, the rest stays.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from bench.errors import did_you_mean

_DTYPES = {"string": "string", "boolean": "boolean", "integer": "Int64", "number": "Float64"}


class Row(BaseModel):
    """A row: a field for each column, None where a cell is empty.

    The description of a type with a pattern completes the message "... is not".
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def rows(file: Path, model: type[Row], faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each valid row with its ``file:line``; append the mistakes to `faults`.

    A header may leave out columns that need not be filled, in any order; an unknown one is a mistake.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.reader(stream, strict=True)
            header = next(lines, [])
            if fault := _header_fault(header, model):
                faults.append(f"{file.name}:1: {fault}")
                return
            end = lines.line_num
            for cells in lines:
                location, end = f"{file.name}:{end + 1}", lines.line_num
                if not cells:
                    continue
                if len(cells) != len(header):
                    faults.append(f"{location}: {len(cells)} cells, but the header has {len(header)} columns")
                    continue
                texts = zip(header, map(str.strip, cells), strict=True)
                try:
                    row = model.model_validate_strings({name: text for name, text in texts if text})
                except ValidationError as error:
                    for detail in error.errors():
                        column = str(detail["loc"][0])
                        faults.append(f"{location}: {column}: {_reason(model, column, detail)}")
                else:
                    yield location, dict(row)
    except FileNotFoundError:
        faults.append(f"{file}: no such file; name a CSV file")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        faults.append(f"{file.name}: not a readable CSV file: {error}")


def read(model: type[Row], column: str, cell: str) -> Any:
    """Return the value of one cell; a wrong one is a ValueError that says why."""
    row = model.model_construct()
    try:
        setattr(row, column, cell)
    except ValidationError as error:
        raise ValueError(_reason(model, column, error.errors()[0])) from None
    return getattr(row, column)


def dtypes(model: type[Row]) -> dict[str, str]:
    """Return the pandas type of each column."""
    return {name: _DTYPES[column["type"]] for name, column in _schema(model).items()}


@cache
def _schema(model: type[Row]) -> dict[str, Mapping[str, Any]]:
    """Describe each column as JSON Schema does, without "or null"."""
    columns = model.model_json_schema()["properties"]
    return {name: column.get("anyOf", [column])[0] for name, column in columns.items()}


def _header_fault(header: list[str], model: type[Row]) -> str:
    for name in header:
        if name not in model.model_fields:
            return f"{name[:40]!r} is no column{did_you_mean(name, model.model_fields)}"
        if header.count(name) > 1:
            return f"{name}: this column is there twice; leave one out"
    for name, field in model.model_fields.items():
        if field.is_required() and name not in header:
            return f"{name}: this column is missing; it must be filled in every row"
    return ""


def _reason(model: type[Row], name: str, detail: ErrorDetails) -> str:
    """Return what pydantic found wrong with a cell, in our words."""
    column, kind, cell = _schema(model)[name], detail["type"], str(detail["input"])[:40]
    if kind == "missing":
        return "must not be empty"
    if kind in ("literal_error", "bool_parsing"):
        words = column.get("enum") or [column["const"]] if kind == "literal_error" else ["yes", "no"]
        return f"{cell!r} is unknown{did_you_mean(cell, words)}"
    if kind == "string_pattern_mismatch":
        return f"{cell!r} is not {column['description']}"
    if kind.startswith(("int_", "float_")):
        return f"{cell!r} is not {'a whole number' if column['type'] == 'integer' else 'a number'}"
    low, high = column["minimum"], column.get("maximum")
    return f"{cell} must be {f'at least {low:g}' if high is None else f'from {low:g} to {high:g}'}"
