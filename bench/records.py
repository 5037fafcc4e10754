"""All runs of a results folder, local and committed, each read once; tables and states come from them.

A run is a directory (`bench.rundir`), a line of the ledger (`bench.ledger`), or both: a finished directory is
used rather than the line, and the line rather than an unfinished directory. No index is kept, so two results
folders are merged by copying their directories, or by exporting one into the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bench import ledger, run_table
from bench.cell import Cell, families
from bench.errors import BenchError, did_you_mean, first_of
from bench.gridfile import Grid, read_grid
from bench.result import Result
from bench.rundir import RunDir, State, attempt

if TYPE_CHECKING:
    import pandas as pd

    from bench.stale import Now

#: States of runs that are trained without being asked for twice.
AGAIN = frozenset({"missing", "interrupted"})


class Results:
    """All runs of a results folder, as they are at this moment.

    Args:
        now: the data and code that finished runs are compared with, see `bench.stale`.
    """

    def __init__(self, root: Path, now: Now | None = None) -> None:
        self.root, self.now = root, now

    @cached_property
    def _runs(self) -> dict[str, Result]:
        lines = dict[str, ledger.Line]()
        for line in ledger.lines(self.root):
            lines.setdefault(line.run_id, line)
        folders = {path.name for path in self.root.glob("runs/*/")}
        return {
            run_id: Result(RunDir(self.root, run_id), lines.get(run_id), among=self)
            for run_id in sorted(folders | lines.keys())
        }

    def __iter__(self) -> Iterator[Result]:
        """Yield the runs that have a directory or a line, sorted by id."""
        return iter(self._runs.values())

    def __getitem__(self, run_id: str) -> Result:
        """Return a run by its id, whether it exists or not."""
        return self._runs.get(run_id) or Result(RunDir(self.root, run_id), among=self)

    def find(self, name: str) -> Result:
        """Return a run by its name, the beginning of it, or its last ten characters.

        Raises:
            BenchError: no run has this name, or several have.
        """
        names = list(self._runs)
        hits = [n for n in names if n == name] or [
            n for n in names if n.startswith(name) or n.endswith(f"-{name}")
        ]
        if len(hits) > 1:
            raise BenchError(
                f"{name!r} matches {len(hits)} runs: {first_of(hits, 3)}; write more of the name"
            )
        if not hits:
            digits = [n.rpartition("-")[2] for n in names]
            near = did_you_mean(name, names if "-" in name else {*names, *digits}, most=6)
            remedy = "`status RECIPE` names all runs of a recipe"
            raise BenchError(f"no run {name!r} in {self.root}{near}; {remedy}")
        return self[hits[0]]

    def of(self, cell: Cell) -> Result:
        """Return the run of a cell."""
        run = self[cell.run_id]
        run.cell = cell
        return run

    @cached_property
    def attempts(self) -> dict[str, str]:
        """The state of the new training, by run id, of runs that are being trained once more."""
        notes = dict[str, str]()
        for path in self.root.glob("rerun/*/runs/"):
            run_id = path.parent.name
            state = attempt(self.root, run_id).look()[0]
            if state.status != "missing":
                notes[run_id] = f"trained once more: {', '.join(filter(None, vars(state).values()))}"
        return notes

    @cached_property
    def newest_code(self) -> dict[str, str]:
        """The hash of the source of each user's method, from the newest run that has it."""
        found = dict[str, tuple[str, str]]()
        for run in self:
            if run.line is not None and run.of_line and '"code":' not in run.line.text:
                continue  # without reading it
            code = ((run.record.get("environment") or {}).get("rests_on") or {}).get("code")
            if code:
                name = str(run.record["cell"]["method"]["name"])
                finished = str((run.record.get("timing") or {}).get("finished"))
                found[name] = max(found.get(name, ("", "")), (finished, str(code)))
        return {name: code for name, (_, code) in found.items()}

    def needed(
        self, cells: Iterable[Cell], again: Collection[str] = AGAIN, forced: Collection[str] = ()
    ) -> list[str]:
        """Return the committed ancestors to train again, because a run to be trained needs their weights.

        Args:
            again: states of runs that are to be trained.
            forced: ids of runs that are to be trained whatever their state.
        """
        found = dict[str, None]()
        for run_id, cell in reversed(families(cells).items()):
            run = self[run_id]
            settled = run.of_line and run_id not in found
            if run_id in forced or (run.local.status in again and not settled):
                elders = [self[parent.run_id] for parent in cell.parents]
                found |= {e.run_id: None for e in elders if e.of_line and e.local.status in again}
        return list(found)

    def states(self, cells: Iterable[Cell], asked: Collection[str] = ()) -> dict[str, State]:
        """Return the state of each cell by run id; a cell with a failed ancestor is blocked.

        Args:
            asked: ids of runs whose state is that of their new training, where there is one.
        """
        known: dict[str, State] = {}

        def state(cell: Cell) -> State:
            if cell.run_id not in known:
                new = attempt(self.root, cell.run_id)
                retrained = cell.run_id in asked and new.path.exists()
                own = new.look()[0] if retrained else self.of(cell).state
                if own.status in ("missing", "interrupted"):
                    for parent in cell.parents:
                        # a committed parent must be trainable here, as its weights may be needed
                        local = [] if parent.run_id in asked else [self[parent.run_id].local]
                        for elder in (state(parent), *local):
                            if elder.status in ("failed", "blocked", "unreadable", "stale"):
                                own = State("blocked", f"{elder.status} parent {parent.run_id}")
                known[cell.run_id] = own
            return known[cell.run_id]

        return {cell.run_id: state(cell) for cell in cells}

    def table(self, runs: Iterable[Result] | None = None) -> pd.DataFrame:
        """Return runs, by default all, as a table: one row per run, whatever its state.

        Rows that differ in nothing but their seed share a `series`. What is unknown is NA. A run whose
        record cannot be trusted has the status `unreadable` and the reason.
        """
        return run_table.table([run.row for run in (self if runs is None else runs)])

    def grid_table(self, grid: Grid) -> pd.DataFrame:
        """Return the cells of a grid as such a table with `label`, in their order, missing ones too."""
        known = self.states(cell for _, cell in grid.cells)
        rows = []
        for label, cell in grid.cells:
            row, state = dict(self.of(cell).row), known[cell.run_id]
            if state.status == "blocked":  # which depends on other runs
                row |= vars(state)
            rows.append(row | {"label": label})
        return run_table.table(rows)

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """The grids of all recipes that were run, by the recipe's name."""
        return {file.stem: read_grid(file) for file in sorted((self.root / "grids").glob("*.json"))}

    @cached_property
    def conflicts(self) -> list[str]:
        """Runs whose directory and line, or two lines, differ."""
        found = []
        first = dict[str, ledger.Line]()
        for line in ledger.lines(self.root):
            other = first.setdefault(line.run_id, line)
            both = other is not line and not (line.problem or other.problem)
            if both and ledger.unlike(other.content, line.content):
                found.append(f"{line.location}: another record of {line.run_id} than {other.location}")
        for run in self:
            if run.line is None or not run.committed or run.local.status != "done":
                continue
            if run.row["status"] == "unreadable":  # reported as such
                continue
            for where, *_ in ledger.unlike(run.line.content, run.packed())[:1]:
                differs = f"its directory differs from {run.line.location} in {where}"
                found.append(f"{run.run_id}: {differs}; the directory is shown")
        return found


def results_folder(path: Path) -> Path:
    """Return the path of a results folder; one that does not exist is a `BenchError`."""
    if not path.is_dir():
        raise BenchError(f"{path}: no such results folder; run a recipe first, or name it")
    return path
