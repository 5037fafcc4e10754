"""Controls in a recipe's tables: each beneath the line that it is the control of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bench.leaderboard.lines import Asked
from bench.records import Grid


def beneath(lines: Iterable[Asked], grid: Grid) -> tuple[Asked, ...]:
    """Put the controls that `controls: true` made behind their method, whose name they no longer bear."""
    labels = {cell.run_id: label for label, cell in grid.cells}
    names = {
        control: (whole, name)
        for whole, named in grid.controls.items()
        for name, control in named.items()
        if labels.get(control) == f"{labels.get(whole)}-{name}"  # else it is a label of its own
    }
    own, controls = list[Asked](), dict[str, list[Asked]]()
    for line in lines:
        whole, name = names.get(line.asked[0].run_id, ("", ""))
        if whole:
            controls.setdefault(whole, []).append(replace(line, control=name))
        else:
            own.append(line)
    found = list[Asked]()
    for line in own:
        found.append(line)
        for run in line.asked:
            found += [replace(control, whole=line) for control in controls.pop(run.run_id, ())]
    return (*found, *(control for left in controls.values() for control in left))
