"""The leaderboard: read from a results folder and the literature, and ordered into tabs of lines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import published
from bench.cell import Cell, ShotRule
from bench.data.split.longtail import shot_groups
from bench.errors import BenchError, did_you_mean
from bench.leaderboard import external, sets
from bench.leaderboard.beneath import Beneath, beneath
from bench.leaderboard.check import Pair, compared
from bench.leaderboard.entries import Entry, entries
from bench.leaderboard.leagues import average_rank, headline_of, ranked
from bench.leaderboard.lines import Line, Tab, rows
from bench.leaderboard.protocols import Measured, Number, protocols
from bench.leaderboard.verdict import Verdict
from bench.metrics import RANKED
from bench.records import Result, Results

#: What is told of the report that a published method is shown by.
_TOLD = (
    *("key", "n", "epochs", "selection", "reported_by", "original", "source", "year", "trust", "note"),
    "doubtful",
)


@dataclass(frozen=True)
class Board:
    """All that the pages tell.

    `numbers` and `methods` are the literature, `done` the runs that have numbers in its words; `entries` are
    ranked, `pairs` as of `compared`, `controls` as of `beneath`; `problems` are mistakes in what was read,
    whose rows are left out.
    """

    results: Results
    numbers: Sequence[Number]
    methods: pd.DataFrame
    done: Sequence[Measured]
    entries: Sequence[Entry]
    pairs: Mapping[str, Sequence[Pair]]
    controls: Beneath
    problems: tuple[str, ...]

    @cached_property
    def tabs(self) -> tuple[Tab, ...]:
        """All data sets with their lines, as they stand."""
        return _tabs(_lines(self))

    @property
    def lines(self) -> list[Line]:
        """The lines of all tabs."""
        return [line for tab in self.tabs for line in tab.lines]

    @property
    def opening(self) -> Tab:
        """The tab that a reader sees first: most judged lines, then measured and published, most measured."""

        def rank(tab: Tab) -> tuple[int, bool, int, int]:
            judged = sum(line.judged for line in tab.lines)
            both = 0 < tab.measured < len(tab.lines)
            return judged, both, tab.measured, len(tab.leagues[tab.opening])

        return max(self.tabs, key=rank)

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each method, the literature's where it has one."""
        found = dict[str, str]()
        for entry in self.entries:
            found.setdefault(entry["method"], entry["title"])
        return found | {number["method"]: number["title"] for number in self.numbers}

    @cached_property
    def average_ranks(self) -> list[tuple[str, float, int]]:
        """Title, mean rank and number of leagues of each method, as of `average_rank`."""
        return [(self.titles[method], rank, met) for method, rank, met in average_rank(self.entries)]

    def check(self) -> tuple[list[Pair], bool]:
        """Return the verdict on every measured series, and whether one is "below"."""
        judged = [pairs[0] for pairs in self.pairs.values()]
        return judged, any(pair["verdict"] == Verdict.BELOW for pair in judged)

    def explain(self, run_id: str) -> list[tuple[Pair, Entry, Entry]]:
        """Return pair, measured and published entry of a run's series, the number it is judged by first.

        Raises:
            BenchError: there is no such run, it is not done, or it is no result.
        """
        status = {run.run_id: run.state.status for run in self.results}
        if run_id not in status:
            raise BenchError(f"{run_id}: no such run{did_you_mean(run_id, status)}")
        if status[run_id] != "done":
            raise BenchError(f"{run_id}: the run is {status[run_id]}; only one that is done can be explained")
        key = next((one.key for one in self.done if one.run.run_id == run_id), None)
        if key is None:
            raise BenchError(f"{run_id}: scored on held-out training images; nothing published is like it")
        rows = {entry["key"]: entry for entry in self.entries}
        nothing = dict.fromkeys(rows[key])
        return [(pair, rows[key], rows.get(pair["place"], nothing)) for pair in self.pairs[key]]


def gather(results: Results, literature: Path = published.HOME) -> Board:
    """Read a results folder and the literature; a user's own published rows lie in ``results/published``."""
    problems: list[str] = []
    shared = (results.root / "published").resolve() == literature.resolve()
    extra = [] if shared else sorted(results.root.glob("published/*.csv"))
    numbers = published.to_rows(published.load(*extra, folder=literature, problems=problems))
    own = [file for file in extra if file.name.endswith("methods.csv")]
    methods = published.load_methods(*own, folder=literature, problems=[])  # told already
    usable = []
    for run in results:
        if fault := _fault(run):
            problems.append(f"{run.run_id}: {fault}")
        else:
            usable.append(run)
    return board(results, usable, numbers, methods, external.load(results.root, problems), tuple(problems))


def board(
    results: Results,
    runs: Sequence[Result],
    numbers: Sequence[Number],
    methods: pd.DataFrame,
    foreign: Sequence[Entry] = (),
    problems: tuple[str, ...] = (),
) -> Board:
    """Make the leaderboard of what was read."""
    done = protocols(runs, numbers)
    controls = beneath(results.grids.values(), done)
    done = [replace(one, literature=None) if one.key in controls.mere else one for one in done]
    found = entries(done, numbers, foreign)
    for named in controls.names.values():
        for name, key in named.items():
            if key in controls.mere:
                next(entry for entry in found if entry["key"] == key)["control"] = name
    found = ranked(found)
    return Board(results, numbers, methods, done, found, compared(found), controls, problems)


def _fault(run: Result) -> str | None:
    """Say why a run cannot be told of, if it should be."""
    row = run.row
    if row["status"] == "unreadable":
        return str(row["reason"])
    if row["status"] == "done" and None in (row["accuracy"], row["title"], row["fingerprint_train"]):
        return "record.json: says done, but has no metrics, method or data; rerun with --force"
    return None


def _lines(board: Board) -> list[Line]:
    """Make lines of entries, and rank them anew: a method that is reported twice is one line."""
    titles = {number["method"]: number["title"] for number in board.numbers}
    runs = dict[str, list[Result]]()
    for one in sorted(board.done, key=lambda one: one.run.cell.seed):
        runs.setdefault(one.key, []).append(one.run)
    found, reported = list[Line](), dict[tuple[Any, str], list[Entry]]()
    for entry in board.entries:
        if entry["kind"] == "published":
            reported.setdefault((entry["league"], entry["method"]), []).append(entry)
        elif entry["kind"] == "measured":
            key = entry["key"]
            found.append(Line(entry, pairs=board.pairs[key], runs=tuple(runs[key])))
        else:
            found.append(Line(entry))
    found += [_published(titles[method], reports) for (_, method), reports in reported.items()]
    places = {place["key"]: place["rank"] for place in ranked(line.entry for line in rows(found))}
    return _beneath(board.controls, [replace(line, rank=places.get(line.key)) for line in found])


def _beneath(controls: Beneath, lines: Sequence[Line]) -> list[Line]:
    """Give methods their controls; what is nothing but a control has no place of its own."""
    every = {line.key: line for line in lines}
    own = _told_apart([line for line in lines if line.key not in controls.mere])
    return [
        replace(line, controls={n: every[key] for n, key in controls.names.get(line.key, {}).items()})
        for line in own
    ]


def _told_apart(lines: Sequence[Line]) -> list[Line]:
    """Say of series of one method in one league in which settings they differ."""
    alike: dict[Any, list[Line]] = {}
    for line in lines:
        alike.setdefault((line.league, line.entry["title"]) if line.runs else line.key, []).append(line)
    found = []
    for members in alike.values():
        if len(members) > 1:
            said = zip(members, variants([line.runs[0].cell for line in members]), strict=True)
            members = [replace(line, variant=variant) for line, variant in said]
        found += members
    return found


def _published(title: str, reports: Sequence[Entry]) -> Line:
    """Join a method's reports of one league: its authors' own number, else the median that was printed."""
    line, told = {**reports[0], "title": title}, dict[str, list[Entry]]()
    for score in RANKED:
        having = sorted((e for e in reports if e[score] is not None), key=lambda e: (e[score], e["key"]))
        if not having:
            continue
        told[score] = having
        trusted = [e for e in having if not e["doubtful"]] or having
        own = [e for e in trusted if e["original"]]
        middle = statistics.median_low([e[score] for e in own or trusted])
        chosen = next(e for e in own or trusted if e[score] == middle)
        line |= {score: middle, f"{score}_std": chosen[f"{score}_std"]}
        if score == "accuracy":
            line |= {name: chosen[name] for name in _TOLD}
    return Line(line, reports=told)


def _tabs(lines: Sequence[Line]) -> tuple[Tab, ...]:
    found: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        found.setdefault((line.entry["dataset"], line.entry["imbalance_factor"]), []).append(line)
    order = {name: place for place, name in enumerate(sets.ORDER)}
    keys = sorted(found, key=lambda key: (order.get(key[0], len(order)), key))
    return tuple(_tab(*key, sorted(found[key], key=_before)) for key in keys)


def _tab(dataset: str, imbalance_factor: float, lines: Sequence[Line]) -> Tab:
    run = next((run for line in lines for run in line.runs), None)
    name = sets.title(dataset, run.record["data"]["title"] if run else None)
    sizes, rule = sets.group_sizes(dataset, imbalance_factor), ShotRule()
    if run and not sizes:
        rule = run.cell.dataset.shots
        groups = shot_groups(np.array(run.record["data"]["class_counts"]), rule)
        sizes = {group: len(classes) for group, classes in groups.items()}
    if len({run.cell.dataset.profile for line in lines for run in line.runs} - {"natural"}) > 1:
        sizes = None  # each profile has its own
    if run and (run.cell.dataset.profile == "natural" or imbalance_factor == 1):
        counts = run.record["data"]["class_counts"]
        return Tab(dataset, imbalance_factor, tuple(lines), name, None, sizes, rule, sets.tail(counts))
    factor = None if sets.has_own_tail(dataset) else imbalance_factor
    return Tab(dataset, imbalance_factor, tuple(lines), name, factor, sizes, rule, sets.known_tail(dataset))


def _before(line: Line) -> tuple[bool, float, str]:
    """Order lines: ours first, each by the metric that ranks it."""
    return line.kind == "published", -(line.entry[headline_of([line.entry])] or -1), line.key


# -- settings --------------------------------------------------------------------------------------
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


def variants(cells: Sequence[Cell]) -> list[str]:
    """Say of each cell in which settings and hyper-parameters it differs from the others."""
    if len(cells) == 1:
        return [""]
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
