"""Controls stand beneath their method: which series is whose control, and which is nothing else.

A recipe's grid file says so of the runs that `controls: true` made. A control of a method's own class that a
recipe has under a label of its own is known by its cell: the method's, but for what the control changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.cell import Cell
from bench.controls import Control, control_in, controls
from bench.leaderboard.protocols import Measured
from bench.records import Grid, series


@dataclass(frozen=True)
class Beneath:
    """Controls by the series they are of.

    Attributes:
        names: by the key of a method's series the keys of its controls, by their names.
        mere: keys of series that are nothing but controls: they have no row, rank or published number.
    """

    names: Mapping[str, Mapping[str, str]]
    mere: frozenset[str]


def beneath(grids: Iterable[Grid], done: Sequence[Measured]) -> Beneath:
    """Say which of the finished series are controls of which others."""
    keys = {one.run.run_id: one.key for one in done}
    names, mere, wanted = dict[str, dict[str, str]](), set[str](), set[str]()
    for grid in grids:
        labels = {cell.run_id: label for label, cell in grid.cells}
        for whole, name, control in _made(grid):
            if whole in keys and control in keys:
                names.setdefault(keys[whole], {})[name] = keys[control]
                if labels.get(control) == f"{labels.get(whole)}-{name}":
                    mere.add(keys[control])
                    del labels[control]
        wanted |= {keys[run_id] for run_id in labels.keys() & keys.keys()}
    mere -= wanted  # a recipe has these for themselves too
    for one in done:
        own = control_in(one.run.cell)
        of = _whole(one, controls()[one.run.cell.method.name][own], done) if own else None
        if own and of:
            names.setdefault(of, {})[own] = one.key
            mere.add(one.key)
    return Beneath(names, frozenset(mere))


def _made(grid: Grid) -> Iterator[tuple[str, str, str]]:
    """Yield a method's run, the name of a control, and the control's run."""
    for whole, named in grid.controls.items():
        for name, control in named.items():
            yield whole, name, control


def _whole(one: Measured, control: Control, done: Sequence[Measured]) -> str | None:
    """Return the key of the series that a run is the control of, None if it was not measured."""
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
