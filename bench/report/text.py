"""How numbers are written; nothing else turns them into text. An unknown number is n/a, never 0."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from bench.cell import ShotRule

NA, NOT_STATED = "n/a", "not stated"

_WEB = ("https://", "http://")


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with fixed digits and thousands separators."""
    return NA if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def short(value: float | None) -> str:
    """Write a positive number with three significant digits, or all digits before the point."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value else 0
    return number(value, digits)


def around(center: float | None, deviation: float | None, digits: int = 2) -> str:
    """Write mean ± standard deviation, or the mean without one."""
    spread = "" if deviation is None else f" ± {number(deviation, digits)}"
    return number(center, digits) + spread


def sort_key(value: float | None) -> float | None:
    """Return what a column is sorted by; n/a has no sort key, and is last in both directions."""
    return None if value is None else round(value, 6)


def counted(count: int, noun: str) -> str:
    """Write a count and its noun: 1 class, 2 classes."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def printed(value: float | None) -> str:
    """Write a published number as papers do, with one or two digits after the point."""
    return NA if value is None else f"{value:.2f}".removesuffix("0")


def duration(seconds: float | None) -> str:
    """Write a time in seconds, minutes or hours."""
    if seconds is None or seconds < 99.5:
        return NA if seconds is None else f"{seconds:.2g} s" if seconds >= 0.1 else "<0.1 s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Write names as in a sentence, "A, B and C"; of many the first, and how many more."""
    shown, more = list(names[:most]), len(names) - most
    shown += [f"{more} more"] if more > 0 else []
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def shortened(name: str, most: int) -> str:
    """Cut a name to at most `most` letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def gap(value: float | None) -> str:
    """Write a difference with its sign."""
    return NA if value is None else f"{value:+.2f}".replace("-", "−")


def group_heads(sizes: Mapping[str, int] | None, rule: ShotRule) -> dict[str, str]:
    """Write the shot groups as column heads, with their bounds, and their sizes if known."""
    bounds = {"many": f">{rule.many_above}", "medium": f"{rule.few_below}–{rule.many_above}"}
    bounds["few"] = f"<{rule.few_below}"
    size = {name: f": {counted(sizes[name], 'class')}" if sizes else "" for name in bounds}
    return {name: f"{name} ({bound}){size[name]}" for name, bound in bounds.items()}


def link(address: str | None) -> str | None:
    """Return an address, quoted, if it is of the web or another page; None if it might run something."""
    if address and re.fullmatch(r"(\.\./|runs/)?[A-Za-z0-9_.+-]+\.html", address):
        return address
    return quote(address, safe=":/?#@!$&'*+,;=%") if address and address.startswith(_WEB) else None


def blocks(notes: str) -> list[tuple[str, str]]:
    """Split a recipe's notes into ("text", paragraph), ("item", of a list) and ("code", indented lines)."""
    found: list[tuple[str, str]] = []
    fresh = True  # an empty line ends a block
    for line in notes.splitlines():
        kind = "item" if line.startswith("* ") else "code" if line.startswith("  ") else "text"
        before, block = ("", "") if fresh else found[-1]
        fresh = not line.strip()
        if fresh:
            continue
        if before == "item" != kind or before == "text" == kind:
            found[-1] = before, f"{block} {line.strip()}"
        elif before == "code" == kind:
            found[-1] = before, f"{block}\n{line.strip()}"
        else:
            found.append((kind, line.removeprefix("* ").strip()))
    return found
