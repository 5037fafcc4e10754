"""The settings of cells that make their numbers comparable, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.cell import Cell
from bench.leaderboard.protocols import FIELDS


def settings(cell: Cell) -> dict[str, Any]:
    """Return the settings that make a cell's number comparable with another's, by dotted name."""
    whole = dict.fromkeys(("backbone", "protocol", "mode"), True)
    parts = cell.model_dump(mode="json", include={**whole, "dataset": {"shots"}})
    parent = cell.parent
    start = f"{parent.method.name}, {parent.protocol.epochs} epochs" if parent else "scratch"
    return {
        "starts from": start,
        **_flat({"mode": parts["mode"], "backbone": parts["backbone"]}),
        **_flat(parts["protocol"]),
        **_flat(parts["dataset"]),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name."""
    found = dict[str, Any]()
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def variants(cells: Sequence[Cell]) -> list[str]:
    """Return for each cell the settings and hyper-parameters in which it differs from the others.

    Of more than two it has as many as tell the cells apart, and the number of the others.
    """
    if len(cells) == 1:
        return [""]
    flats = [settings(cell) | cell.method.params | {"version": cell.method.version} for cell in cells]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    differing = [name for name in names if len({str(flat.get(name)) for flat in flats}) > 1]
    differing.sort(key=lambda name: name.rpartition(".")[2] not in FIELDS)  # what decides verdicts first

    def values(names: Sequence[str]) -> list[str]:
        return [listed({name: flat[name] for name in names if name in flat}) for flat in flats]

    apart = len({*values(differing)})
    few = next(n for n in range(2, len(names) + 2) if len({*values(differing[:n])}) == apart)
    more = f", {len(differing) - few} more" if len(differing) > few else ""
    return [text + more for text in values(differing[:few])]


def listed(values: Mapping[str, Any]) -> str:
    """Write settings with their names."""
    return ", ".join(f"{name} {written(value)}" for name, value in values.items())


def written(value: Any) -> str:
    """Write a setting as a recipe would."""
    if isinstance(value, list | tuple):
        return ", ".join(map(written, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
