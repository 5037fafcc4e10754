"""All runs of a results folder, local and committed, each read once; all else is a projection of them.

A run is a directory (`bench.rundir`), a line of the ledger (`bench.ledger`), or both: a finished directory
goes before the line, and the line before a directory that is not finished. No index is kept, so two results
folders are merged by copying their directories, or by exporting one into the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import ledger, metrics
from bench.cell import Cell, families
from bench.errors import BenchError
from bench.files import write_text
from bench.json_text import canonical, hash_of
from bench.metrics import METRICS
from bench.rundir import Busy, RunDir, State, attempt, cell_from, equal, first_line
from bench.search.record import SearchRecord

if TYPE_CHECKING:
    import pandas as pd

    from bench.stale import Now

__all__ = [
    "Busy",
    "Grid",
    "Result",
    "Results",
    "RunDir",
    "State",
    "equal",
    "is_grid_name",
    "load_results",
    "series",
    "states",
    "write_grid",
]

#: How runs stand that are trained without being asked for twice.
AGAIN = frozenset({"missing", "interrupted"})

#: Columns of the table of runs: their type, and where in a cell or a record they come from.
COLUMNS = {
    "dataset": ("string", "cell.dataset.name"),
    "imbalance_factor": ("Float64", "cell.imbalance_factor"),
    "held_out": ("Float64", "cell.dataset.held_out"),
    "profile": ("string", "cell.dataset.profile"),
    "split_seed": ("Int64", "cell.dataset.split_seed"),
    "class_order": ("Int64", "cell.dataset.class_order"),
    "label_noise": ("Float64", "cell.dataset.label_noise"),
    "method": ("string", "cell.method.name"),
    "version": ("Int64", "cell.method.version"),
    "params": ("string", "cell.method.params"),
    "backbone": ("string", "cell.backbone.name"),
    "backbone_options": ("string", "cell.backbone.options"),
    "seed": ("Int64", "cell.seed"),
    "mode": ("string", "cell.mode"),
    **{name: ("Float64", f"metric.{name}") for name in METRICS},
    "best_accuracy": ("Float64", "best_on_test.accuracy"),
    "best_epoch": ("Int64", "best_on_test.epoch"),
    "chosen_accuracy": ("Float64", "best_on_validation.accuracy"),
    "chosen_epoch": ("Int64", "best_on_validation.epoch"),
    "epochs": ("Int64", "cell.protocol.epochs"),
    "batch_size": ("Int64", "cell.protocol.batch_size"),
    "lr": ("Float64", "cell.protocol.optimizer.lr"),
    "augmentation": ("string", "augmentation"),
    "experts": ("Int64", "method.experts"),
    "parameters": ("Int64", "model.parameters"),
    "inference_parameters": ("Int64", "model.inference_parameters"),
    "fingerprint_train": ("string", "data.fingerprint.train"),
    "fingerprint_test": ("string", "data.fingerprint.test"),
    "fingerprint_extra_train": ("string", "data.fingerprint.extra_train"),
    "extra_train": ("string", "cell.dataset.extra_train.name"),
    "extra_data": ("string", "cell.dataset.extra_train.kind"),
    "images_per_second": ("Float64", "timing.images_per_second"),
    "wall_seconds": ("Float64", "timing.wall_seconds"),
    "device_seconds": ("Float64", "timing.device_seconds"),
    "peak_memory_mb": ("Float64", "timing.peak_memory_mb"),
    "device": ("string", "environment.device"),
    "precision": ("string", "precision"),
    "finished": ("string", "timing.finished"),
    "copy_of": ("string", "data.copy_of"),
    "copy_kind": ("string", "data.copy_kind"),
    "comparable": ("boolean", "data.comparable"),
    "title": ("string", "method.title"),
    "family": ("string", "method.family"),
    "paper": ("string", "method.paper"),
    "reconstruction": ("boolean", "method.reconstruction"),
}


#: Where values come from that a `Result` finds out itself.
_OWN = ("cell", "augmentation", "precision")


class Result:
    """One run: how it stands, its cell and what came out, each read when it is first asked for.

    Attributes:
        directory: where it is, or would be, on this machine.
        line: what is committed of it, None if nothing is.
    """

    def __init__(
        self,
        directory: RunDir,
        line: ledger.Line | None = None,
        cell: Cell | None = None,
        among: Results | None = None,
    ) -> None:
        self.run_id, self.directory, self.line, self._among = directory.run_id, directory, line, among
        if cell is not None:
            self.cell = cell

    @cached_property
    def _local(self) -> tuple[State, dict[str, Any] | None]:
        return self.directory.look()

    @property
    def local(self) -> State:
        """How it stands on this machine, whatever is committed of it."""
        return self._local[0]

    @property
    def committed(self) -> bool:
        """Whether there is a line that can be trusted."""
        return self.line is not None and self.line.problem is None

    @property
    def of_line(self) -> bool:
        """Whether it is told by its line: nothing finished is on this machine."""
        return self.committed and self.local.status != "done"

    @cached_property
    def state(self) -> State:
        """How it stands; of its parents only whether what is done still stands for them."""
        own = self._own
        if self._among is None:
            return own
        judged = self._among.judge(self) if own.status == "done" else own
        told = [judged.reason, self._among.attempts.get(self.run_id)]
        return State(judged.status, "; ".join(filter(None, told)) or None)

    @property
    def _own(self) -> State:
        if self.of_line:
            return State("done")
        if self.local.status == "missing" and self.line is not None:
            return State("unreadable", f"{self.line.path.name}:{self.line.number}: {self.line.problem}")
        return self.local

    @cached_property
    def record(self) -> dict[str, Any]:
        """What came out, as of `RunDir.read_record` but for the cell; empty while nothing can be read."""
        if self.of_line and self.line is not None:
            return self.line.content
        return self._local[1] or {}

    @cached_property
    def cell(self) -> Cell:
        """Its cell; what cannot be read is a `BenchError`."""
        try:
            return cell_from(self.record["cell"]) if self.record else self.directory.read_cell()
        except (KeyError, ValueError) as error:
            raise BenchError(f"record.json: {first_line(error)}; rerun with --force") from error

    @cached_property
    def series(self) -> str:
        """Name what it shares with its repetitions."""
        return series(self.cell)

    @property
    def augmentation(self) -> str:
        """The policy of the view that is classified, a method's first: the protocol's, or its own."""
        protocol, own = self.cell.protocol, (self.record.get("method") or {}).get("views")
        first = str((protocol.views or own or ["main"])[0])
        return protocol.augmentation if first == "main" else first

    @property
    def precision(self) -> str | None:
        """In which numbers it was trained: bfloat16 or float32; None where its record does not say."""
        told = (self.record.get("environment") or {}).get("bfloat16")
        return None if told is None else "bfloat16" if told else "float32"

    @property
    def curve(self) -> list[dict[str, Any]]:
        """What is known of each epoch."""
        return ledger.curve(self.record) if self.of_line else self.directory.epochs()

    @property
    def confusion(self) -> np.ndarray | None:
        """Test images by class and predicted class (C, C)."""
        if self.of_line:
            return ledger.confusion(self.record)
        matrix = self.record.get("confusion")
        return None if matrix is None else np.asarray(matrix)

    @property
    def hits(self) -> np.ndarray | None:
        """Which test images (N,) were classified rightly; None of runs that kept neither scores nor bits."""
        return ledger.hits(self.record) if self.of_line else self.directory.hits(self.record)

    @property
    def headline(self) -> str:
        """The metric that ranks it: see `bench.metrics.headline`."""
        return metrics.headline((self.record.get("data") or {}).get("test_counts") or ())

    def packed(self) -> dict[str, Any]:
        """Return what a line says of it, curve and bits aside."""
        return self.record if self.of_line else ledger.packed(self.record)

    @cached_property
    def row(self) -> dict[str, Any]:
        """Its row of the table, each value of its type; of a run that cannot be read what its cell tells."""
        row: dict[str, Any] = {"run_id": self.run_id, "id": self.run_id.rpartition("-")[2]}
        row |= vars(self.state)
        try:
            parent = self.cell.parent
            row |= {"series": self.series, "parent": parent and parent.run_id}
            row |= {name: _value(self, *column) for name, column in COLUMNS.items()}
        except (BenchError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            if self.state.status != "unreadable":
                told = f"record.json: {first_line(error)}"
                if isinstance(error, BenchError):  # which names the file
                    told = str(error).replace(f"{self.directory.path}/", "")
                row |= {"status": "unreadable", "reason": told}
        return row


@dataclass(frozen=True)
class Grid:
    """What a recipe asked for: its path, title and header comment, and each cell with the recipe's label.

    `controls` has by the run id of a method those of its controls, by their names (see `bench.controls`);
    `search` is what was tried and what won, if the recipe has a search.
    """

    recipe: str
    title: str
    notes: str
    cells: tuple[tuple[str, Cell], ...]
    controls: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    search: SearchRecord | None = None


class Results:
    """All runs of a results folder, as they are at this moment.

    With `now`, what is done is held against the data and the code that are here (see `bench.stale`).
    """

    def __init__(self, root: Path, now: Now | None = None) -> None:
        self.root, self._now = root, now

    @cached_property
    def _runs(self) -> dict[str, Result]:
        lines = dict[str, ledger.Line]()
        for line in ledger.lines(self.root):
            lines.setdefault(line.run_id, line)
        folders = {path.name for path in self.root.glob("runs/*/")}
        return {
            i: Result(RunDir(self.root, i), lines.get(i), among=self) for i in sorted(folders | lines.keys())
        }

    def __iter__(self) -> Iterator[Result]:
        """Go through the runs of which anything is here, by their ids."""
        return iter(self._runs.values())

    def __getitem__(self, run_id: str) -> Result:
        """Return a run by its id, be there anything of it or not."""
        return self._runs.get(run_id) or Result(RunDir(self.root, run_id), among=self)

    def of(self, cell: Cell) -> Result:
        """Return the run of a cell."""
        run = self[cell.run_id]
        run.cell = cell
        return run

    @cached_property
    def attempts(self) -> dict[str, str]:
        """What is to be said of runs that are trained once more, beside what is there."""
        told = dict[str, str]()
        for path in self.root.glob("rerun/*/runs/"):
            run_id = path.parent.name
            state = attempt(self.root, run_id).look()[0]
            if state.status != "missing":
                told[run_id] = (
                    f"trained once more: {state.status}{f', {state.reason}' if state.reason else ''}"
                )
        return told

    def judge(self, run: Result) -> State:
        """Say how a run stands whose record says that it is done."""
        from bench.stale import judged  # which reads images' folders

        return judged(run, self, self._now)

    @cached_property
    def newest_code(self) -> dict[str, str]:
        """The hash of the source of each user's method in the newest run that tells it."""
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
        """Return the committed ancestors to train anew, as a run to be trained needs their weights.

        Args:
            again: how runs stand that are to be trained.
            forced: ids of those that are to be trained however they stand.
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
        """Say by run id how each cell stands; a cell with a failed ancestor is blocked.

        Args:
            asked: ids of runs that stand as their new training does, while there is one beside.
        """
        known: dict[str, State] = {}

        def state(cell: Cell) -> State:
            if cell.run_id not in known:
                new = attempt(self.root, cell.run_id)
                anew = cell.run_id in asked and new.path.exists()
                own = new.look()[0] if anew else self.of(cell).state
                if own.status in ("missing", "interrupted"):
                    for parent in cell.parents:
                        # of a committed parent what counts is whether it could be trained anew
                        local = [] if parent.run_id in asked else [self[parent.run_id].local]
                        for elder in (state(parent), *local):
                            if elder.status in ("failed", "blocked", "unreadable", "stale"):
                                own = State("blocked", f"{elder.status} parent {parent.run_id}")
                known[cell.run_id] = own
            return known[cell.run_id]

        return {cell.run_id: state(cell) for cell in cells}

    def table(self, runs: Iterable[Result] | None = None) -> pd.DataFrame:
        """Return runs, by default all, as a table: one row per run, whatever became of it."""
        return _table([run.row for run in (self if runs is None else runs)])

    def grid_table(self, grid: Grid) -> pd.DataFrame:
        """Return a grid's cells as such a table, in its order: blocked and missing ones too, with `label`."""
        standing = self.states(cell for _, cell in grid.cells)
        rows = []
        for label, cell in grid.cells:
            row, state = dict(self.of(cell).row), standing[cell.run_id]
            if state.status == "blocked":  # which a run alone does not show
                row |= vars(state)
            rows.append(row | {"label": label})
        return _table(rows)

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """The grids of all recipes that were run, by the recipe's name."""
        return {file.stem: _grid(file) for file in sorted((self.root / "grids").glob("*.json"))}

    @cached_property
    def conflicts(self) -> list[str]:
        """Runs whose directory and line, or two lines, say different things."""
        told = []
        first = dict[str, ledger.Line]()
        for line in ledger.lines(self.root):
            other = first.setdefault(line.run_id, line)
            both = other is not line and not (line.problem or other.problem)
            if both and ledger.unlike(other.content, line.content):
                told.append(f"{line.place}: another record of {line.run_id} than {other.place}")
        for run in self:
            if run.line is None or not run.committed or run.local.status != "done":
                continue
            for where, *_ in ledger.unlike(run.line.content, run.packed())[:1]:
                differs = f"its directory differs from {run.line.place} in {where}"
                told.append(f"{run.run_id}: {differs}; the directory is shown")
        return told


def load_results(results: str | Path = "results") -> pd.DataFrame:
    """Return all runs of a results folder as a table: one row per run, whatever became of it.

    Rows that differ in nothing but their seed share a `series`. What is unknown is NA. A run whose
    record cannot be trusted is a row with status `unreadable` and the reason.
    """
    return Results(results_folder(Path(results))).table()


def states(results: Path, cells: Iterable[Cell], asked: Collection[str] = ()) -> dict[str, State]:
    """Say by run id how each cell stands at this moment, as `Results.states` does."""
    return Results(results).states(cells, asked)


def results_folder(path: Path) -> Path:
    """Return a results folder's path, or say in a `BenchError` that there is none."""
    if not path.is_dir():
        raise BenchError(f"{path}: no such results folder; run a recipe first, or name it")
    return path


def is_grid_name(name: str) -> bool:
    """Tell whether a recipe may be called so: its name is that of files and pages, and stands in commands."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,119}", name) is not None and name != "index"


def write_grid(results: Path, name: str, grid: dict[str, Any]) -> None:
    """Keep what a recipe asks for, so that its missing cells can be told of without the recipe.

    `grid` has `recipe` (its path), `title`, `notes` (its header comment) and `cells`: a list of `run_id`,
    `label` (the recipe's name for the method) and `cell`. In the file each is a line, without defaults. Of
    a search it has a `search` too (see `bench.search.record`).
    """
    cells = []
    for entry in grid["cells"]:
        short = cell_from(entry["cell"]).model_dump(mode="json", exclude_defaults=True)
        cells.append(json.dumps(entry | {"cell": short}))
    apart = ("cells", "search")
    head = json.dumps({key: value for key, value in grid.items() if key not in apart}, indent=1)[:-2]
    if "search" in grid:  # a line for each method
        methods = ",\n".join(map(json.dumps, grid["search"]["methods"]))
        rest = json.dumps(grid["search"] | {"methods": []}).removesuffix("]}")
        head += f',\n "search": {rest}\n{methods}\n]}}'
    write_text(results / "grids" / f"{name}.json", f'{head},\n "cells": [\n' + ",\n".join(cells) + "\n]}\n")


def _grid(file: Path) -> Grid:
    try:
        if not is_grid_name(file.stem):
            raise ValueError("no recipe is called so")
        grid = json.loads(file.read_text(encoding="utf-8"))
        absent = {"recipe", "title", "notes", "cells"} - grid.keys()
        if absent:
            raise ValueError(f"has no {', '.join(sorted(absent))}")
        if not all(isinstance(grid[key], str) for key in ("title", "notes")):
            raise ValueError("title and notes are not text")
        cells = [(entry["label"], cell_from(entry["cell"])) for entry in grid["cells"]]
        for entry, (label, cell) in zip(grid["cells"], cells, strict=True):
            if cell.run_id != entry["run_id"] or not isinstance(label, str):
                raise ValueError(f"not the cell of {str(entry['run_id'])[:200]!r}")
        search = _search(grid["search"], {cell.run_id for _, cell in cells}) if "search" in grid else None
        controls = {e["run_id"]: dict(e["controls"]) for e in grid["cells"] if e.get("controls")}
        return Grid(str(grid["recipe"]), grid["title"], grid["notes"], tuple(cells), controls, search)
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BenchError(f"{file}: {first_line(error)}; run the recipe again") from error


def _search(content: Any, there: Collection[str]) -> SearchRecord:
    search = SearchRecord.model_validate_json(json.dumps(content))
    if absent := {*search.trial_runs, *search.final_runs} - set(there):
        raise ValueError(f"search names runs that are no cells, as {min(absent)[:200]!r}")
    return search


def series(cell: Cell, *, across_splits: bool = False) -> str:
    """Name what repetitions of a cell share: a hash of all but the seeds, its own and its parents'.

    With `across_splits` the split seeds are left out too.
    """
    content = cell.identity()
    parts = [content]
    for part in parts:
        part.pop("seed", None)  # a default is not in it
        if across_splits:
            part["dataset"].pop("split_seed", None)
        parts += [part["parent"]] if "parent" in part else []
        parts += part.get("others", ())
    return hash_of(content)[:10]


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    types = {"label": "string"} if rows and "label" in rows[0] else {}
    types |= dict.fromkeys(("run_id", "id", "series", "parent", "status", "reason"), "string")
    types |= {name: kind for name, (kind, _) in COLUMNS.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _value(run: Result, kind: str, path: str) -> Any:
    """Follow a dotted path as far as there is one; mappings become compact JSON."""
    first, *rest = path.split(".")
    if first == "metric":
        return metrics.value(rest[0], run.record, lambda: run.confusion)
    content: Any = getattr(run, first) if first in _OWN else run.record.get(first)
    for key in rest:
        if content is None:
            return None
        content = content.get(key) if isinstance(content, dict) else getattr(content, key)
    if content is None:
        return None
    if isinstance(content, dict) and kind == "string":
        return canonical(content)
    value = {"string": str, "boolean": bool, "Int64": int, "Float64": float}[kind](content)
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError(f"{path}: too large a number")
    return value
