"""Grid files, ``results/grids/<recipe>.json``: the cells of a recipe, so that missing ones are known."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.errors import BenchError
from bench.files import write_text
from bench.rundir import cell_from, first_line
from bench.search.record import SearchRecord


@dataclass(frozen=True)
class Grid:
    """What a recipe asks for.

    Attributes:
        recipe: its name.
        notes: its header comment.
        cells: label and cell.
        controls: of a method's run id the run ids of its controls by their names, see `bench.controls`.
        search: what was tried and what won, if the recipe has a search.
    """

    recipe: str
    title: str
    notes: str
    cells: tuple[tuple[str, Cell], ...]
    controls: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    search: SearchRecord | None = None


def is_grid_name(name: str) -> bool:
    """Return whether a recipe may have this name, which is used for files and pages and in commands."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,119}", name) is not None and name != "index"


def write_grid(results: Path, name: str, grid: dict[str, Any]) -> None:
    """Write the grid file of a recipe.

    Args:
        grid: `recipe`, `title`, `notes` and `cells`: a list of `run_id`, `label`, `cell`, perhaps `controls`.
            Seeds of one cell share a line, without defaults. With a search also `search`, see
            `bench.search.record`.
    """
    seeds = dict[tuple[str, str], list[dict[str, Any]]]()
    for item in grid["cells"]:
        short = cell_from(item["cell"]).model_dump(mode="json", exclude_defaults=True)
        run = {"seed": item["cell"]["seed"]} | {
            key: item[key] for key in ("run_id", "controls") if key in item
        }
        seeds.setdefault((item["label"], json.dumps(_with_seed(short, None))), []).append(run)
    cells = [
        f'{{"label": {json.dumps(label)}, "runs": {json.dumps(runs)}, "cell": {cell}}}'
        for (label, cell), runs in seeds.items()
    ]
    apart = ("cells", "search")
    head = json.dumps({key: value for key, value in grid.items() if key not in apart}, indent=1)[:-2]
    if "search" in grid:  # a line for each method
        methods = ",\n".join(map(json.dumps, grid["search"]["methods"]))
        rest = json.dumps(grid["search"] | {"methods": []}).removesuffix("]}")
        head += f',\n "search": {rest}\n{methods}\n]}}'
    write_text(results / "grids" / f"{name}.json", f'{head},\n "cells": [\n' + ",\n".join(cells) + "\n]}\n")


def read_grid(file: Path) -> Grid:
    """Read a grid file.

    Raises:
        BenchError: it cannot be read.
    """
    try:
        if not is_grid_name(file.stem):
            raise ValueError("no recipe can have this name")
        grid = json.loads(file.read_text(encoding="utf-8"))
        absent = {"recipe", "title", "notes", "cells"} - grid.keys()
        if absent:
            raise ValueError(f"has no {', '.join(sorted(absent))}")
        if not all(isinstance(grid[key], str) for key in ("title", "notes")):
            raise ValueError("title and notes are not text")
        items = [(item, run) for item in grid["cells"] for run in item["runs"]]
        cells = [(item["label"], cell_from(_with_seed(item["cell"], run["seed"]))) for item, run in items]
        for (_, run), (label, cell) in zip(items, cells, strict=True):
            if cell.run_id != run["run_id"] or not isinstance(label, str):
                raise ValueError(f"not the cell of {str(run['run_id'])[:200]!r}")
        search = _search(grid["search"], {cell.run_id for _, cell in cells}) if "search" in grid else None
        controls = {run["run_id"]: dict(run["controls"]) for _, run in items if run.get("controls")}
        return Grid(str(grid["recipe"]), grid["title"], grid["notes"], tuple(cells), controls, search)
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BenchError(f"{file}: {first_line(error)}; run the recipe again") from error


def _with_seed(cell: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """Return a cell's JSON-able form with another seed, or none, for itself and its ancestors."""
    changed: dict[str, Any] = {} if seed is None else {"seed": seed}
    if cell.get("parent"):
        changed["parent"] = _with_seed(cell["parent"], seed)
    if cell.get("others"):
        changed["others"] = [_with_seed(other, seed) for other in cell["others"]]
    return {key: value for key, value in cell.items() if key != "seed"} | changed


def _search(content: Any, there: Collection[str]) -> SearchRecord:
    search = SearchRecord.model_validate_json(json.dumps(content))
    if absent := {*search.trial_runs, *search.final_runs} - set(there):
        raise ValueError(f"search names runs that are not among the cells, such as {min(absent)[:200]!r}")
    return search
