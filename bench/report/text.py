"""How numbers are written: the only place that turns them into text. What is unknown is n/a, never 0."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from bench.cell import ShotRule

NA, NOT_STATED = "n/a", "not stated"

_WEB = ("https://", "http://")


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with a fixed count of digits, and thousands apart."""
    return NA if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def short(value: float | None) -> str:
    """Write a positive number with three digits that count, or all before the point."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value else 0
    return number(value, digits)


def around(center: float | None, deviation: float | None, digits: int = 2) -> str:
    """Write mean ± standard deviation; a single value is written without one."""
    told = number(center, digits)
    return told if deviation is None else f"{told} ± {number(deviation, digits)}"


def order(value: float | None) -> float | None:
    """Return what a column is sorted by; what is n/a has no place, and stands last either way."""
    return None if value is None else round(value, 6)


def counted(count: int, noun: str) -> str:
    """Write a count and its noun: 1 class, 2 classes."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def printed(value: float | None) -> str:
    """Write a published number as papers do: no more than two digits after the point, and one at least."""
    return NA if value is None else f"{value:.2f}".removesuffix("0")


def duration(seconds: float | None) -> str:
    """Write a time in the unit that a reader would take."""
    if seconds is None or seconds < 99.5:
        return NA if seconds is None else f"{seconds:.2g} s" if seconds >= 0.1 else "<0.1 s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Write names as a sentence has them: A, B and C; of many the first, and how many more."""
    shown, more = list(names[:most]), len(names) - most
    shown += [f"{more} more"] if more > 0 else []
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def gap(value: float | None) -> str:
    """Write a difference with its sign."""
    return NA if value is None else f"{value:+.2f}".replace("-", "−")


def group_heads(sizes: Mapping[str, int] | None, rule: ShotRule) -> dict[str, str]:
    """Write the shot groups as heads of columns: their bounds, and their sizes if known."""
    bounds = {"many": f">{rule.many_above}", "medium": f"{rule.few_below}–{rule.many_above}"}
    bounds["few"] = f"<{rule.few_below}"
    told = {name: f": {counted(sizes[name], 'class')}" if sizes else "" for name in bounds}
    return {name: f"{name} ({bound}){told[name]}" for name, bound in bounds.items()}


def link(address: str | None) -> str | None:
    """Return an address, quoted, if it is one of the web or another page: it must not run anything."""
    if address and re.fullmatch(r"(\.\./|runs/)?[A-Za-z0-9_.+-]+\.html", address):
        return address
    return quote(address, safe=":/?#@!$&'*+,;=%") if address and address.startswith(_WEB) else None


def blocks(notes: str) -> list[tuple[str, str]]:
    """Part a recipe's notes into ("text", paragraph), ("item", of a list) and ("code", indented lines)."""
    parts: list[tuple[str, str]] = []
    fresh = True  # after an empty line nothing goes on
    for line in notes.splitlines():
        kind = "item" if line.startswith("* ") else "code" if line.startswith("  ") else "text"
        before, said = ("", "") if fresh else parts[-1]
        if not line.strip():
            fresh = True
            continue
        if before == "item" != kind or before == "text" == kind:
            parts[-1] = before, f"{said} {line.strip()}"
        elif before == "code" == kind:
            parts[-1] = before, f"{said}\n{line.strip()}"
        else:
            parts.append((kind, line.removeprefix("* ").strip()))
        fresh = False
    return parts
