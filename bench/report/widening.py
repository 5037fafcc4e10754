"""How a reader narrows and widens a league: its fields, their values, and what then differs, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.leaderboard.leagues import SHARED, League
from bench.leaderboard.lines import Line, Tab
from bench.leaderboard.protocols import FIELDS
from bench.report.text import NOT_STATED

#: What a row is chosen by: the fields of a league, and what kind of row it is; each with its explanation.
CHOICES = {name: (FIELDS[name].label, FIELDS[name].help) for name in SHARED}
CHOICES["kind"] = (
    "rows",
    "measured here, published by others, or external: predictions that were scored here",
)


@dataclass(frozen=True)
class Choice:
    """A field with its values, the most frequent first, each with how many lines have it."""

    name: str
    label: str
    hint: str
    values: Sequence[tuple[str, int]]


def choices(tab: Tab) -> list[Choice]:
    """Return the fields of a tab's lines, in the order of `CHOICES`."""
    found = []
    for name, (label, hint) in CHOICES.items():
        counts = Counter(_said(line, name) for line in tab.lines)
        values = sorted(counts.items(), key=lambda item: (item[0] == NOT_STATED, -item[1], item[0]))
        found.append(Choice(name, label, hint, values))
    return found


def places(lines: Iterable[Line], fields: Sequence[Choice]) -> list[str]:
    """Write where each line stands among the fields' values, for scripts."""
    numbers = [{value: str(place) for place, (value, _) in enumerate(field.values)} for field in fields]
    return [
        ".".join(known[_said(line, field.name)] for field, known in zip(fields, numbers, strict=True))
        for line in lines
    ]


def leagues(tab: Tab, fields: Sequence[Choice]) -> list[tuple[str, str]]:
    """Return each league's place and its name: the fields in which the leagues of this tab are unlike."""
    unlike = [field.name for field in fields[:-1] if len(field.values) > 1]
    found = []
    for league, lines in tab.leagues.items():
        name = ", ".join(_worded(field, league[field]) for field in unlike)
        place = places(lines[:1], fields)[0].rpartition(".")[0] + "."  # any kind of row
        found.append((place, f"{name or 'all'} ({len(lines)})"))
    return found


def protocol(league: League) -> str:
    """Write all fields of a league but its data set, and what goes without saying."""
    told = (field for field in SHARED if league[field] is None or league[field] != FIELDS[field].usual)
    return ", ".join(_worded(field, league[field]) for field in told)


def _worded(field: str, value: Any) -> str:
    return f"{FIELDS[field].label} {NOT_STATED if value is None else value}"


def _said(line: Line, field: str) -> str:
    value = line.kind if field == "kind" else line.league[field]
    return NOT_STATED if value is None else str(value)
