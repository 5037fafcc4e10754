"""How a recipe's lines were measured: settings by value, and methods with their hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.leaderboard.board import settings, written
from bench.leaderboard.lines import Asked
from bench.report.page import Table, Value


def protocol_table(lines: Iterable[Asked]) -> Table:
    """List the settings: first those that differ, by value, then those that all methods share."""
    said: dict[str, dict[str, list[str]]] = {}
    for line in lines:
        for name, value in settings(line.asked[0].cell).items():
            labels = said.setdefault(name, {}).setdefault(written(value), [])
            if line.label not in labels:
                labels.append(line.label)
    rows = [
        (name, value, of)
        for name, values in sorted(said.items(), key=lambda item: len(item[1]) == 1)
        for value, of in _of(values)
    ]
    return Table.listing(("setting", "value", "of"), rows)


def _of(values: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Say which labels have each value, the one that is usual last; it need not name them."""
    rarest_first = sorted(values, key=lambda value: len(values[value]))
    told = [(value, ", ".join(values[value])) for value in rarest_first]
    usual = rarest_first[-1]
    if len(values) == 1:
        return [(usual, "all methods")]
    named = {label for value in rarest_first[:-1] for label in values[value]}
    if len(values[usual]) > 2 and named.isdisjoint(values[usual]):
        told[-1] = usual, "all others"
    return told


def method_table(lines: Iterable[Asked]) -> Table:
    """List each label's method and hyper-parameters, those that are not its defaults first."""
    rows = {}
    for line in lines:
        method, paper = line.asked[0].cell.method, line.runs[0].row["paper"] if line.runs else None
        changed = {name: value for name, value in method.params.items() if name in method.changed}
        kept = {name: value for name, value in method.params.items() if name not in method.changed}
        name = Value(f"{line.name}, version {method.version}", href=paper)
        rows[line.label, str(method)] = (line.label, name, _listed(changed), _listed(kept))
    heads = ("label", "method", "hyper-parameters set", "at their defaults")
    return Table.listing(heads, rows.values())


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {written(value)}" for name, value in values.items()) or "none"
