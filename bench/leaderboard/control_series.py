"""Which series are controls of which others, and which are nothing else.

A recipe's grid file names the controls that `controls: true` made. A control of the method's own class under
a label of its own is recognised by its cell: that of the method, except for what the control changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.cell import Cell
from bench.controls import Control, control_in, controls
from bench.gridfile import Grid
from bench.leaderboard.protocols import Measured
from bench.result import series


@dataclass(frozen=True)
class ControlSeries:
    """Series that are controls.

    Attributes:
        of: by the key of a method's series, the keys of its controls by name.
        only: keys of series that are only controls: they have no row, rank or published number.
    """

    of: dict[str, dict[str, str]]
    only: frozenset[str]


def control_series(grids: Iterable[Grid], done: Sequence[Measured]) -> ControlSeries:
    """Find the controls among the finished series."""
    keys = {one.run.run_id: one.key for one in done}
    found, only, requested = dict[str, dict[str, str]](), set[str](), set[str]()
    for grid in grids:
        labels = {cell.run_id: label for label, cell in grid.cells}
        for whole, controls_of_run in grid.controls.items():
            for name, control in controls_of_run.items():
                if whole in keys and control in keys:
                    found.setdefault(keys[whole], {})[name] = keys[control]
                    if labels.get(control) == f"{labels.get(whole)}-{name}":
                        only.add(keys[control])
                        del labels[control]
        requested |= {keys[run_id] for run_id in labels.keys() & keys.keys()}
    only -= requested  # a recipe has these as methods too
    for one in done:
        own = control_in(one.run.cell)
        method = _whole(one, controls()[one.run.cell.method.name][own], done) if own else None
        if own and method:
            found.setdefault(method, {})[own] = one.key
            only.add(one.key)
    return ControlSeries(found, frozenset(only))


def _whole(one: Measured, control: Control, done: Sequence[Measured]) -> str | None:
    """Return the key of the method's series that a run is the control of, None if it was not measured."""
    cell, mine = one.run.cell, series(_without(control, one.run.cell))
    return next(
        (
            other.key
            for other in done
            if other.run.cell.method.name == cell.method.name
            and not control_in(other.run.cell)
            and series(_without(control, other.run.cell)) == mine
        ),
        None,
    )


def _without(control: Control, cell: Cell) -> Cell:
    """Return a cell without what a control changes."""
    method = cell.method
    changed = tuple(name for name in method.changed if name not in control.params)
    defaults = {name: type(cell.protocol).model_fields[name].default for name in control.protocol}
    return cell.model_copy(
        update={
            "method": method.model_copy(update={"changed": changed}),
            "protocol": cell.protocol.model_copy(update=defaults),
        }
    )
