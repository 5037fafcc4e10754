"""Recipes: YAML files that define a grid, read strictly and resolved to cells once.

* `title`: a line for readers; default: the file's name.
* `include`: a file, or a list of files, below the recipes folder, that this one changes: mappings merge
  deeply, all else is replaced. Files of one list have equal rank and may not disagree. A file that is not
  beside this one is found by its name in the recipes folder and its folders, or in this project's.
* `mode`: fast (default) or exact.
* `methods`: label -> {method, params, protocol, backbone, card, from}. `method` is the label by default;
  `backbone` and `card` replace those of the grid and the recipe; `from` is the label of the parent cell, at
  the same point of the grid.
* `card`: `authors` trains each method as its authors did (see `bench.cards`), or the name of another card;
  default: `none`. The recipe overrides the card, and needs no backbone.
* `controls`: true adds the controls of each method, which show what its parts add (see `bench.controls`).
* `log`: a logger, or a list of them, as `tensorboard` or `wandb:project=lt` (see `bench.loggers`); it is not
  part of a cell.
* `grid`: axes, all combined; each a value or a list of values. They are `dataset`, `imbalance_factor`
  (not for data sets of `profile: natural`, which have their own tail), `backbone` (a name, or
  {name, options}), `seed`, `mode`, the axes of the tail (`profile`, `split_seed`, `class_order`,
  `label_noise`), and any `protocol.*`, `params.*` (for the methods that have it) and `backbone.options.*`.
* `zip`: a list of groups of axes that change together.
* `datasets`: name -> the fields of a data set, or those that differ from another one: the built-in one of
  that name, or the one that `base` names, built in or the recipe's.
* `protocol`: how the cells are trained.
* `overrides`: a list of {match, protocol, params}: changes to the cells that match all of `match`.
* `search`: ranges of hyper-parameters; the same number of settings is tried for every method, and the winners
  are trained on all training images (see `bench.recipe.search`).

A recipe begins with comments: what it reproduces, what to expect, how long it takes. Precedence is described
in `bench.recipe.grid`, the dialect of YAML in `bench.recipe.yaml_text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.errors import BenchError, did_you_mean
from bench.gridfile import is_grid_name
from bench.loggers import parse as parse_logger
from bench.recipe.axes import TAIL_AXES
from bench.recipe.files import read
from bench.recipe.grid import expand
from bench.recipe.schema import Sections, each, parse
from bench.recipe.search import Search, read_search
from bench.recipe.tree import Node, shown

__all__ = ["Point", "Recipe", "grid_file", "load"]

MOST_LISTED = 20  # mistakes in one message
LONGEST_NAME = 100


@dataclass(frozen=True)
class Point:
    """A cell of a recipe, with its label and the run ids of its controls by name.

    In a search `method_label` is the label that is searched, and `phase` is "search" or "final".
    """

    label: str
    cell: Cell
    controls: Mapping[str, str] = field(default_factory=dict)
    method_label: str = ""
    phase: str = ""

    @property
    def axes(self) -> dict[str, str | int | float]:
        """The values that usually distinguish the points of a recipe."""
        return {
            "label": self.label,
            "method": self.cell.method.name,
            "dataset": self.cell.dataset.name,
            "imbalance_factor": self.cell.imbalance_factor,
            "backbone": self.cell.backbone.name,
            "seed": self.cell.seed,
        }

    @cached_property
    def names(self) -> dict[str, str]:
        """The axes, those of the tail and the ids as text: what `Recipe.only` compares."""
        cell = self.cell
        values = self.axes | {key: getattr(cell.dataset, key) for key in TAIL_AXES}
        texts = {key: f"{v:g}" if isinstance(v, float) else str(v) for key, v in values.items()}
        search = {"label": self.method_label, "phase": self.phase} if self.phase else {}
        return texts | {"id": cell.id, "run_id": cell.run_id} | search


@dataclass(frozen=True)
class Recipe:
    """A validated recipe: its points in the order of its file, without duplicate cells.

    With a `search` they are its trials, and after `bench.search.resolve` also the winners so far.
    """

    name: str
    title: str
    notes: str
    points: tuple[Point, ...]
    log: tuple[str, ...] = ()
    search: Search | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The label of each run, by its id."""
        return {point.cell.run_id: point.label for point in self.points}

    def only(self, filters: Sequence[str]) -> Recipe:
        """Keep the points that pass every filter, each "key=value" or "key=value,value".

        Keys are those of `Point.names`. A parent that is filtered out is still in the `family()` of its
        child's cell. `grid_file` needs the whole recipe.

        Raises:
            BenchError: an unknown key, a value that no point has, or filters that leave nothing.
        """
        wanted = each(self._wanted, filters)
        points = [p for p in self.points if all(p.names[key] in values for key, values in wanted)]
        if not points:
            raise BenchError(f"--only: no cell of {self.name} passes all of: {', '.join(filters)}")
        return replace(self, points=tuple(points))

    def _wanted(self, text: str) -> tuple[str, list[str]]:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals:
            raise BenchError(f"--only: {shown(text)}: write key=value, as in label=ce,crt")
        if key not in (keys := self.points[0].names):
            raise BenchError(f"--only: unknown key {shown(key)}{did_you_mean(key, keys)}")
        known = {point.names[key] for point in self.points}
        wanted = [value.strip() for value in values.split(",")]
        for value in wanted:
            if value not in known:
                near = did_you_mean(value, known)
                raise BenchError(f"--only: no cell of {self.name} has {key} {shown(value)}{near}")
        return key, wanted


def load(path: Path, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `sets` are changes to it, "key=value" with a dotted key and a YAML value.

    Raises:
        BenchError: all mistakes, one a line: `file:line: path: message`.
    """
    if not is_grid_name(path.stem) or len(path.stem) > LONGEST_NAME:
        raise BenchError(
            f"{shown(str(path))}: its report has the file's name, so that must be at most {LONGEST_NAME} "
            "letters, digits and _ . + -, and not 'index'"
        )
    try:
        tree, notes = read(path, sets)
        sections = parse(Sections, tree)
        search = read_search(tree) if sections.search is not None else None
        if search:
            points = tuple(Point(*fields) for fields in search.trials())
        else:
            points = tuple(Point(*fields) for fields in expand(tree))
        log = tuple(each(_logger, tree.mapping["log"].elements if "log" in tree.mapping else ()))
    except BenchError as error:
        lines = str(error).split("\n")
        more = [f"... and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
        raise BenchError("\n".join(lines[:MOST_LISTED] + more)) from None
    return Recipe(path.stem, sections.title or path.stem, notes, points, log, search)


def _logger(node: Node) -> str:
    """Return the text of a logger, after a check that it is one."""
    try:
        parse_logger(str(node.value))
    except BenchError as error:
        raise node.fault(str(error)) from None
    return str(node.value)


def grid_file(recipe: Recipe) -> dict[str, Any]:
    """Return the cells of a recipe as plain JSON, so that missing ones are known without the recipe."""
    cells = [
        {
            "run_id": p.cell.run_id,
            "label": p.label,
            **({"controls": dict(p.controls)} if p.controls else {}),
            "cell": p.cell.model_dump(mode="json"),
        }
        for p in recipe.points
    ]
    content = {"recipe": recipe.name, "title": recipe.title, "notes": recipe.notes, "cells": cells}
    return content | ({"search": recipe.search.record().model_dump(mode="json")} if recipe.search else {})
