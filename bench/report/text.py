"""How numbers are written: the only place that turns them into text. What is unknown is n/a, never 0."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from urllib.parse import quote

NA = "n/a"


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return statistics.fmean(values) if values else None


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with a fixed count of digits, and thousands apart."""
    return NA if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def short(value: float | None) -> str:
    """Write a positive number with three digits that count, or all before the point."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value else 0
    return number(value, digits)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write mean ± sample standard deviation; a single value is written without one."""
    if len(values) < 2:
        return number(mean(values), digits)
    return f"{number(mean(values), digits)} ± {number(statistics.stdev(values), digits)}"


def counted(count: int, noun: str) -> str:
    """Write a count and its noun: 1 class, 2 classes."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def web_link(url: str | None) -> str | None:
    """Return the address, quoted, if it is one of the web: a link from a record must not run anything."""
    return quote(url, safe=":/?#@!$&'*+,;=%") if url and url.startswith(("https://", "http://")) else None
