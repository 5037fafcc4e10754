"""CSV files with typed columns, and mistakes told as ``file:line: column: what is wrong``.

The file is a user's, so nothing in it is trusted: a row with a mistake is told and left out, the rest stays.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import did_you_mean

Reader = Callable[[str], Any]


@dataclass(frozen=True)
class Column:
    """What a column holds: its pandas type, how a cell is read, and whether it must be filled.

    `read` turns a cell that is not empty into a value, or raises a ValueError that says what is wrong.
    """

    dtype: str
    read: Reader
    required: bool = False


def text(cell: str) -> str:
    """Take the cell as it is."""
    return cell


def yes(cell: str) -> bool:
    """Read yes or no."""
    return bool(one_of("yes", "no")(cell) == "yes")


def matching(pattern: str, meaning: str) -> Reader:
    """Make a reader of cells that match a regular expression as a whole."""

    def read(cell: str) -> str:
        if not re.fullmatch(pattern, cell):
            raise ValueError(f"{cell[:40]!r} is not {meaning}")
        return cell

    return read


def one_of(*words: str) -> Reader:
    """Make a reader of a fixed vocabulary."""

    def read(cell: str) -> str:
        if cell not in words:
            raise ValueError(f"{cell[:40]!r} is unknown{did_you_mean(cell, words)}")
        return cell

    return read


def number(low: float, high: float = math.inf) -> Reader:
    """Make a reader of finite numbers within bounds, which belong to them."""
    bounds = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"

    def read(cell: str) -> float:
        try:
            value = float(cell)
        except ValueError:
            raise ValueError(f"{cell[:40]!r} is not a number") from None
        if not low <= value <= high or math.isinf(value):
            raise ValueError(f"{cell[:40]} must be {bounds}")
        return value

    return read


def whole(low: int, high: int) -> Reader:
    """Make a reader of whole numbers within bounds, which belong to them."""
    bounded = number(low, high)

    def read(cell: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", cell):
            raise ValueError(f"{cell[:40]!r} is not a whole number")
        return int(bounded(cell))

    return read


def rows(file: Path, columns: dict[str, Column], told: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each valid row, None where a cell is empty, with its ``file:line``; mistakes go to `told`.

    A header may leave out columns that need not be filled, in any order; an unknown one is a mistake.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.reader(stream, strict=True)
            header = next(lines, [])
            if wrong := _wrong(header, columns):
                told.append(f"{file.name}:1: {wrong}")
                return
            line = lines.line_num
            for cells in lines:
                place, line = f"{file.name}:{line + 1}", lines.line_num
                row = _row(place, header, cells, columns, told) if cells else None
                if row is not None:
                    yield place, row
    except FileNotFoundError:
        told.append(f"{file}: no such file; name a CSV file")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told.append(f"{file.name}: not a readable CSV file: {error}")


def _wrong(header: list[str], columns: dict[str, Column]) -> str:
    for name in header:
        if name not in columns:
            return f"{name[:40]!r} is no column{did_you_mean(name, columns)}"
        if header.count(name) > 1:
            return f"{name}: this column stands twice; leave one out"
    absent = [name for name, column in columns.items() if column.required and name not in header]
    return f"{absent[0]}: this column is missing; it must be filled in every row" if absent else ""


def _row(
    place: str, header: list[str], cells: list[str], columns: dict[str, Column], told: list[str]
) -> dict[str, Any] | None:
    if len(cells) != len(header):
        told.append(f"{place}: {len(cells)} cells, but the header has {len(header)} columns")
        return None
    before, row = len(told), dict[str, Any].fromkeys(columns)
    for name, cell in zip(header, cells, strict=True):
        try:
            if cell := cell.strip():
                row[name] = columns[name].read(cell)
            elif columns[name].required:
                raise ValueError("must not be empty")
        except ValueError as error:
            told.append(f"{place}: {name}: {error}")
    return row if len(told) == before else None
