"""The settings of a recipe's lines, and its methods with their hyper-parameters, as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from bench.leaderboard.cell_settings import listed, settings, written
from bench.leaderboard.lines import RecipeLine
from bench.report.table import Table, Value


def protocol_table(lines: Iterable[RecipeLine]) -> Table:
    """List the settings: first those that differ, by value, then those of all methods."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for line in lines:
        for name, value in settings(line.requested[0].cell).items():
            found.setdefault(name, {}).setdefault(written(value), {})[line.label] = None
    rows = [
        (name, value, of)
        for name, values in sorted(found.items(), key=lambda item: len(item[1]) == 1)
        for value, of in _of(values)
    ]
    return Table.listing(("setting", "value", "of"), rows)


def _of(values: Mapping[str, Collection[str]]) -> list[tuple[str, str]]:
    """Return each value with its labels, the most frequent value last, as "all others" if that is clear."""
    *rare, usual = sorted(values, key=lambda value: len(values[value]))
    if not rare:
        return [(usual, "all methods")]
    named = {label for value in rare for label in values[value]}
    others = len(values[usual]) > 2 and named.isdisjoint(values[usual])
    return [
        *((value, ", ".join(values[value])) for value in rare),
        (usual, "all others" if others else ", ".join(values[usual])),
    ]


def method_table(lines: Iterable[RecipeLine]) -> Table:
    """List each label's method and hyper-parameters, first those that the recipe sets."""
    rows = {}
    for line in lines:
        method, paper = line.requested[0].cell.method, line.runs[0].row["paper"] if line.runs else None
        changed = {name: value for name, value in method.params.items() if name in method.changed}
        kept = {name: value for name, value in method.params.items() if name not in method.changed}
        name = Value(f"{line.name}, version {method.version}", href=paper)
        rows[line.label, str(method)] = (line.label, name, listed(changed) or "none", listed(kept) or "none")
    heads = ("label", "method", "hyper-parameters set", "at their defaults")
    return Table.listing(heads, rows.values())
