"""Measured runs, ordered for telling: by data set and imbalance factor, then by method, over seeds.

Rows are never averaged across different settings or different splits. Nothing is formatted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bench.cell import Cell, DataSet
from bench.data.longtail import shot_groups
from bench.records import Grid, Results


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        runs: a table as of `bench.records.Results.grid_table`, one row per seed.
        cell: that of the first seed.
        variant: the settings in which this row differs from others of its label.
        split: where a method's seeds were measured on different splits, the one of this row.
    """

    label: str
    runs: pd.DataFrame
    cell: Cell
    variant: str = ""
    split: str = ""

    @property
    def begun(self) -> bool:
        """Whether anything is known of any of its runs."""
        return set(self.runs.status) != {"missing"}

    @cached_property
    def done(self) -> pd.DataFrame:
        """The runs that have numbers."""
        return self.runs[self.runs.status == "done"]

    def values(self, column: str) -> list[float]:
        """Return what is known of a column, over the seeds that are done."""
        return [float(value) for value in self.done[column].dropna()]

    def by_seed(self, column: str) -> dict[int, float]:
        """Return what is known of a column, by seed."""
        known = self.done.dropna(subset=[column])
        return {int(seed): float(value) for seed, value in zip(known.seed, known[column], strict=True)}

    @property
    def optimism(self) -> list[float]:
        """By how much choosing the epoch on the test set flatters, per seed."""
        return [float(value) for value in (self.done.best_accuracy - self.done.accuracy).dropna()]

    def first(self, column: str) -> Any:
        """Return a column's first known value, None if there is none."""
        there = self.runs[column].dropna()
        return there.iloc[0] if len(there) else None

    @property
    def not_done(self) -> list[tuple[str, str | None, list[int]]]:
        """Status, reason and seeds of what is not done."""
        rest = self.runs[self.runs.status != "done"]
        grouped: dict[tuple[str, str | None], list[int]] = {}
        for status, reason, seed in zip(rest.status, rest.reason, rest.seed, strict=True):
            grouped.setdefault((status, None if pd.isna(reason) else reason), []).append(seed)
        return [(*key, seeds) for key, seeds in grouped.items()]


@dataclass(frozen=True)
class Section:
    """One data set with one imbalance factor: all that may stand in one table.

    `data` is the `data` block of a finished run's record, None while there is none.
    """

    dataset: DataSet
    imbalance_factor: float
    rows: tuple[Row, ...]
    data: Mapping[str, Any] | None

    @property
    def splits(self) -> list[str]:
        """The different splits that its runs were measured on."""
        return sorted({split_of(run) for row in self.rows for _, run in row.done.iterrows()})

    @property
    def begun(self) -> list[Row]:
        """The rows of which a run was begun; all, as long as none was."""
        return [row for row in self.rows if row.begun] or list(self.rows)

    @property
    def backbones(self) -> list[str]:
        """The different backbones, in the order of the recipe."""
        return list(dict.fromkeys(row.cell.backbone.name for row in self.rows))

    @property
    def groups(self) -> dict[str, list[int]] | None:
        """The classes of each shot group, None while their counts are not known."""
        if self.data is None:
            return None
        return shot_groups(np.asarray(self.data["class_counts"]), self.dataset.shots)


def sections(results: Results, grid: Grid, runs: pd.DataFrame) -> list[Section]:
    """Order a grid's runs (of `Results.grid_table`) into sections, in the order of the recipe."""
    cells = {cell.run_id: cell for _, cell in grid.cells}
    settled = [(cells[run].dataset, cells[run].imbalance_factor) for run in runs.run_id]
    found = []
    for (dataset, imbalance_factor), members in _grouped(runs, settled):
        done = members[members.status == "done"]
        data = results[done.run_id.iloc[0]].record["data"] if len(done) else None
        found.append(Section(dataset, imbalance_factor, tuple(_rows(members, cells)), data))
    return found


def _rows(runs: pd.DataFrame, cells: Mapping[str, Cell]) -> Iterable[Row]:
    for label, of_label in _grouped(runs, runs.label):
        variants = list(_grouped(of_label, of_label.series))
        firsts = [cells[members.run_id.iloc[0]] for _, members in variants]
        for cell, name, (_, members) in zip(firsts, differences(firsts), variants, strict=True):
            done = members[members.status == "done"]
            splits = [split_of(run) for _, run in done.iterrows()]
            first, *others = list(_grouped(done, splits)) or [("", done)]
            # What is not done is told with the first.
            whole = members[members.run_id.isin(first[1].run_id) | (members.status != "done")]
            yield Row(label, whole, cell, name, first[0] if others else "")
            for split, rest in others:
                yield Row(label, rest, cell, name, split)


def split_of(run: Any) -> str:
    """Name the split a run was measured on, train and test."""
    return f"{str(run.fingerprint_train)[:6]}/{str(run.fingerprint_test)[:6]}"


def _grouped(table: pd.DataFrame, keys: Iterable[Any]) -> Iterable[tuple[Any, pd.DataFrame]]:
    """Group rows by keys, one per row, in the order of first appearance."""
    places: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [(key, table.iloc[rows]) for key, rows in places.items()]


def settings(cell: Cell) -> dict[str, Any]:
    """Return, by dotted name, what makes a cell's number comparable with another's."""
    parts = cell.model_dump(mode="json", include={"backbone", "protocol", "mode"})
    parent = cell.parent
    started = f"{parent.method.name}, {parent.protocol.epochs} epochs" if parent else "scratch"
    flat = {"starts from": started}
    pending = [(key, parts[key]) for key in ("mode", "backbone", "protocol")]
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, dict):
            pending[:0] = [(f"{name}.{key}", item) for key, item in value.items()]
        else:
            flat[name.removeprefix("protocol.")] = value
    return flat


def differences(cells: Sequence[Cell]) -> list[str]:
    """Say of each cell in which settings and hyper-parameters it differs from the others."""
    flats = [settings(cell) | cell.method.params | {"version": cell.method.version} for cell in cells]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    differing = [name for name in names if len({str(flat.get(name)) for flat in flats}) > 1]
    return [
        ", ".join(f"{name} {written(flat[name])}" for name in differing if name in flat) for flat in flats
    ]


def written(value: Any) -> str:
    """Write a setting as a recipe would."""
    if isinstance(value, list | tuple):
        return ", ".join(map(written, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
