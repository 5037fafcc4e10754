"""The runs of a recipe as sections of lines: one for each data set and imbalance factor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bench.cell import STANDARD, DataSet
from bench.data.split.longtail import shot_groups
from bench.gridfile import Grid
from bench.leaderboard import sets
from bench.leaderboard.cell_settings import variants
from bench.leaderboard.entries import entry, over_seeds
from bench.leaderboard.grouping import grouped
from bench.leaderboard.lines import RecipeLine
from bench.records import Results
from bench.result import Result
from bench.rundir import State


@dataclass(frozen=True)
class Section:
    """The lines of one data set and imbalance factor.

    A line never averages over different settings or splits.
    """

    dataset: DataSet
    imbalance_factor: float
    lines: tuple[RecipeLine, ...]

    @property
    def title(self) -> str:
        """The data set and its tail."""
        name = self.dataset.title or self.dataset.name
        tail = "" if self.dataset.tail == STANDARD else f", {self.dataset.tail}"
        if self.dataset.profile == "natural":
            own = sets.tail(self.data["class_counts"]) if self.data else "its own tail"
            return f"{name}, {own}{tail}"
        return f"{name}, imbalance factor {self.imbalance_factor:g}{tail}"

    @property
    def anchor(self) -> str:
        """Its anchor in the page."""
        tail = [] if self.dataset.tail == STANDARD else [self.dataset.tail]
        parts = [self.dataset.name, f"if{self.imbalance_factor:g}", *tail]
        return "-".join(parts).replace(", ", "-").replace(" ", "-")

    @cached_property
    def done(self) -> list[Result]:
        """Its finished runs."""
        return [run for line in self.lines for run in line.runs]

    @property
    def data(self) -> Mapping[str, Any] | None:
        """The `data` block of a finished run's record, None without one."""
        return self.done[0].record["data"] if self.done else None

    @cached_property
    def splits(self) -> list[str]:
        """The different splits of its runs."""
        return sorted({split_of(run) for run in self.done})

    @property
    def begun(self) -> list[RecipeLine]:
        """The lines with a begun run, or all lines if there is none."""
        return [line for line in self.lines if line.begun] or list(self.lines)

    @property
    def backbones(self) -> list[str]:
        """The different backbones in recipe order."""
        return list(dict.fromkeys(line.requested[0].cell.backbone.name for line in self.lines))

    @property
    def groups(self) -> dict[str, list[int]]:
        """The classes of each shot group, empty while their counts are unknown."""
        return shot_groups(np.asarray(self.data["class_counts"]), self.dataset.shots) if self.data else {}


def sections(results: Results, grid: Grid) -> list[Section]:
    """Return a grid's runs as sections in recipe order, without the trials of a search."""
    states = results.states(cell for _, cell in grid.cells)
    trials = set(grid.search.trial_runs) if grid.search else set()
    requested = [(label, results.of(cell)) for label, cell in grid.cells if cell.run_id not in trials]
    parts = grouped(requested, lambda pair: (pair[1].cell.dataset, pair[1].cell.imbalance_factor))
    found = []
    for key, members in parts.items():
        lines = list[RecipeLine]()
        for label, same in grouped(members, lambda pair: pair[0]).items():
            lines += _lines(label, [run for _, run in same], states)
        found.append(Section(*key, _with_controls(lines, grid)))
    return found


def split_of(run: Result) -> str:
    """Name the split of a run, train and test."""
    return f"{str(run.row['fingerprint_train'])[:6]}/{str(run.row['fingerprint_test'])[:6]}"


def _lines(label: str, runs: Iterable[Result], states: Mapping[str, State]) -> Iterable[RecipeLine]:
    """Yield a line for each series and split; runs that are not done join the first split."""
    every = list(grouped(runs, lambda run: run.series).values())
    for series, variant in zip(every, variants([runs[0].cell for runs in every]), strict=True):
        splits = grouped((run for run in series if run.row["status"] == "done"), split_of)
        first = next(iter(splits), "")
        for split, done in (splits or {"": []}).items():
            requested = [r for r in series if r in done or (split == first and r.row["status"] != "done")]
            about = {name: done[0].row[name] if done else None for name in ("title", "reconstruction")}
            about["headline"] = done[0].headline if done else None
            yield RecipeLine(
                entry(kind="measured", key=requested[0].run_id, n=len(done), **about, **over_seeds(done)),
                runs=tuple(done),
                variant=variant,
                label=label,
                requested=tuple(requested),
                states=states,
                split=split if len(splits) > 1 else "",
            )


def _with_controls(lines: Iterable[RecipeLine], grid: Grid) -> tuple[RecipeLine, ...]:
    """Move the controls that `controls: true` made behind their method, under their own names."""
    labels = {cell.run_id: label for label, cell in grid.cells}
    names = {
        control: (whole, name)
        for whole, named in grid.controls.items()
        for name, control in named.items()
        if labels.get(control) == f"{labels.get(whole)}-{name}"  # else it has its own label
    }
    methods, controls = list[RecipeLine](), dict[str, list[RecipeLine]]()
    for line in lines:
        whole, name = names.get(line.requested[0].run_id, ("", ""))
        if whole:
            controls.setdefault(whole, []).append(replace(line, control=name))
        else:
            methods.append(line)
    found = list[RecipeLine]()
    for line in methods:
        found.append(line)
        for run in line.requested:
            found += [replace(control, whole=line) for control in controls.pop(run.run_id, ())]
    return (*found, *(control for left in controls.values() for control in left))
