"""All runs of a results folder: how the cells of a grid stand, and one tidy table of what came out.

No index is kept, so two results folders are merged by copying one over the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cell import Cell
from bench.errors import BenchError
from bench.files import write_text
from bench.rundir import Busy, RunDir, State, canonical, cell_from, equal, first_line, hash_of, pretty

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Busy",
    "RunDir",
    "State",
    "equal",
    "grids",
    "is_grid_name",
    "load_grid",
    "load_results",
    "series",
    "states",
    "write_grid",
]

#: Columns of the table of runs: their type, and where in a record they come from.
COLUMNS = {
    "dataset": ("string", "cell.dataset.name"),
    "imbalance_factor": ("Float64", "cell.imbalance_factor"),
    "held_out": ("Int64", "cell.dataset.held_out"),
    "method": ("string", "cell.method.name"),
    "version": ("Int64", "cell.method.version"),
    "params": ("string", "cell.method.params"),
    "backbone": ("string", "cell.backbone.name"),
    "backbone_options": ("string", "cell.backbone.options"),
    "seed": ("Int64", "cell.seed"),
    "mode": ("string", "cell.mode"),
    "accuracy": ("Float64", "metrics.accuracy"),
    "many": ("Float64", "metrics.many"),
    "medium": ("Float64", "metrics.medium"),
    "few": ("Float64", "metrics.few"),
    "balanced": ("Float64", "metrics.balanced"),
    "worst_class": ("Float64", "metrics.worst_class"),
    "harmonic": ("Float64", "metrics.harmonic"),
    "ece": ("Float64", "metrics.ece"),
    "best_accuracy": ("Float64", "best_on_test.accuracy"),
    "best_epoch": ("Int64", "best_on_test.epoch"),
    "chosen_accuracy": ("Float64", "best_on_validation.accuracy"),
    "chosen_epoch": ("Int64", "best_on_validation.epoch"),
    "epochs": ("Int64", "cell.protocol.epochs"),
    "batch_size": ("Int64", "cell.protocol.batch_size"),
    "lr": ("Float64", "cell.protocol.optimizer.lr"),
    "augmentation": ("string", "cell.protocol.augmentation"),  # see `_augmentation`
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
    "finished": ("string", "timing.finished"),
    "copy_of": ("string", "data.copy_of"),
    "copy_kind": ("string", "data.copy_kind"),
    "title": ("string", "method.title"),
    "family": ("string", "method.family"),
    "paper": ("string", "method.paper"),
    "reconstruction": ("boolean", "method.reconstruction"),
}


def states(results: Path, cells: Iterable[Cell]) -> dict[str, State]:
    """Say by run id how each cell stands; a cell with a failed ancestor is blocked."""
    known: dict[str, State] = {}

    def state(cell: Cell) -> State:
        if cell.run_id not in known:
            own = RunDir(results, cell.run_id).look()[0]
            if own.status in ("missing", "interrupted"):
                for elder in cell.parents:
                    parent = state(elder)
                    if parent.status in ("failed", "blocked", "unreadable"):
                        own = State("blocked", f"{parent.status} parent {elder.run_id}")
                        break
            known[cell.run_id] = own
        return known[cell.run_id]

    return {cell.run_id: state(cell) for cell in cells}


def is_grid_name(name: str) -> bool:
    """Tell whether a recipe may be called so: its name is that of files and pages, and stands in commands."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,119}", name) is not None and name != "index"


def write_grid(results: Path, name: str, grid: dict[str, Any]) -> None:
    """Keep what a recipe asks for, so that its missing cells can be told of without the recipe.

    `grid` has `recipe` (its path), `title`, `notes` (its header comment) and `cells`: a list of `run_id`,
    `label` (the recipe's name for the method) and `cell`.
    """
    write_text(results / "grids" / f"{name}.json", pretty(grid) + "\n")


def grids(results: Path) -> dict[str, dict[str, Any]]:
    """Read the grids of all recipes that were run, by the recipe's name."""
    found = {}
    for file in sorted((results / "grids").glob("*.json")):
        try:
            if not is_grid_name(file.stem):
                raise ValueError("no recipe is called so")
            grid = json.loads(file.read_text(encoding="utf-8"))
            absent = {"recipe", "title", "notes", "cells"} - grid.keys()
            if absent:
                raise ValueError(f"has no {', '.join(sorted(absent))}")
            if not all(isinstance(grid[key], str) for key in ("title", "notes")):
                raise ValueError("title and notes are not text")
            for entry in grid["cells"]:
                if cell_from(entry["cell"]).run_id != entry["run_id"] or not isinstance(entry["label"], str):
                    raise ValueError(f"not the cell of {str(entry['run_id'])[:200]!r}")
        except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise BenchError(f"{file}: {first_line(error)}; run the recipe again") from error
        found[file.stem] = grid
    return found


def results_folder(path: Path) -> Path:
    """Return a results folder's path, or say in a `BenchError` that there is none."""
    if not path.is_dir():
        raise BenchError(f"{path}: no such results folder; run a recipe first, or name it")
    return path


def load_results(results: str | Path = "results") -> pd.DataFrame:
    """Return all runs of a results folder as a table: one row per run, whatever became of it.

    Rows that differ in nothing but their seed share a `series`. What is unknown is NA. A run whose
    record cannot be trusted is a row with status `unreadable` and the reason.
    """
    root = results_folder(Path(results))
    runs = sorted(path.name for path in root.glob("runs/*") if path.is_dir())
    return _table([_row(RunDir(root, run_id)) for run_id in runs])


def load_grid(results: Path, grid: dict[str, Any]) -> pd.DataFrame:
    """Return a grid's cells as such a table, in its order: blocked and missing ones too, with `label`."""
    cells = [cell_from(entry["cell"]) for entry in grid["cells"]]
    standing = states(results, cells)
    rows = []
    for cell, entry in zip(cells, grid["cells"], strict=True):
        row = _row(RunDir(results, cell.run_id), cell)
        state = standing[cell.run_id]
        if state.status == "blocked":  # which a run directory alone does not show
            row |= vars(state)
        rows.append(row | {"label": entry["label"]})
    return _table(rows)


def series(cell: Cell) -> str:
    """Name what repetitions of a cell share: a hash of all but the seeds, its own and its parents'."""
    content = cell.identity()
    parts = [content]
    for part in parts:
        part.pop("seed", None)  # a default is not in it
        parts += [part["parent"]] if "parent" in part else []
        parts += part.get("others", ())
    return hash_of(content)[:10]


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    types = {"label": "string"} if rows and "label" in rows[0] else {}
    types |= dict.fromkeys(("run_id", "id", "series", "parent", "status", "reason"), "string")
    types |= {name: kind for name, (kind, _) in COLUMNS.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _row(run: RunDir, cell: Cell | None = None) -> dict[str, Any]:
    """Fill a row; of a run that cannot be read, as much as its cell tells."""
    state, record = run.look()
    row: dict[str, Any] = {"run_id": run.run_id, "id": run.run_id.rpartition("-")[2], **vars(state)}
    try:
        cell = cell or (cell_from(record["cell"]) if record else run.read_cell())
        row |= {"series": series(cell), "parent": cell.parent and cell.parent.run_id}
        content = (record or {}) | {"cell": cell.model_dump(mode="json")}
        row |= {name: _value(content, *column) for name, column in COLUMNS.items()}
        row["augmentation"] = _augmentation(cell, content)
    except (BenchError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if state.status != "unreadable":
            row |= {"status": "unreadable", "reason": f"{run.record.name}: {first_line(error)}"}
    return row


def _augmentation(cell: Cell, content: dict[str, Any]) -> str:
    """Return the policy of the view that is classified, a method's first: the protocol's, or its own."""
    own = (content.get("method") or {}).get("views")
    first = str((cell.protocol.views or own or ["main"])[0])
    return cell.protocol.augmentation if first == "main" else first


def _value(content: Any, kind: str, path: str) -> Any:
    """Follow a dotted path as far as there is one; mappings become compact JSON."""
    for key in path.split("."):
        content = (content or {}).get(key)
    if content is None:
        return None
    if isinstance(content, dict) and kind == "string":
        return canonical(content)
    value = {"string": str, "boolean": bool, "Int64": int, "Float64": float}[kind](content)
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError(f"{path}: too large a number")
    return value
