"""The leaderboard, read from a results folder and the literature: entries, and lines in tabs."""

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
from bench.cell import ShotRule
from bench.data.split.longtail import shot_groups
from bench.errors import BenchError, did_you_mean
from bench.leaderboard import external, sets
from bench.leaderboard.cell_settings import variants
from bench.leaderboard.check import Pair, compared
from bench.leaderboard.control_series import ControlSeries, control_series
from bench.leaderboard.entries import Entry, entries
from bench.leaderboard.grouping import grouped
from bench.leaderboard.leagues import average_rank, headline_of, ranked
from bench.leaderboard.lines import Line, Tab, rows
from bench.leaderboard.protocols import Measured, Number, protocols
from bench.leaderboard.verdict import Verdict
from bench.metrics import RANKED
from bench.records import Results
from bench.result import Result

#: What a published line takes from the report that it shows.
_REPORT = (
    *("key", "n", "epochs", "selection", "reported_by", "original", "source", "year", "trust", "note"),
    "doubtful",
)


@dataclass(frozen=True)
class Board:
    """The contents of all pages.

    `numbers` and `methods` are the literature, `done` the finished runs in its terms; `entries` are ranked,
    for `pairs` see `compared`, for `controls` `control_series`; `problems` are mistakes in the files read,
    whose rows are left out.
    """

    results: Results
    numbers: Sequence[Number]
    methods: pd.DataFrame
    done: Sequence[Measured]
    entries: Sequence[Entry]
    pairs: Mapping[str, Sequence[Pair]]
    controls: ControlSeries
    problems: tuple[str, ...]

    @cached_property
    def tabs(self) -> tuple[Tab, ...]:
        """All data sets with their lines."""
        return _tabs(_lines(self))

    @property
    def lines(self) -> list[Line]:
        """The lines of all tabs."""
        return [line for tab in self.tabs for line in tab.lines]

    @property
    def opening(self) -> Tab:
        """The tab shown first: most judged lines, then measured and published ones, then most measured."""

        def sort_key(tab: Tab) -> tuple[int, bool, int, int]:
            judged = sum(line.judged for line in tab.lines)
            both = 0 < tab.measured < len(tab.lines)
            return judged, both, tab.measured, len(tab.leagues[tab.opening])

        return max(self.tabs, key=sort_key)

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each method, the literature's if it has one."""
        found = dict[str, str]()
        for entry in self.entries:
            found.setdefault(entry["method"], entry["title"])
        return found | {number["method"]: number["title"] for number in self.numbers}

    @cached_property
    def average_ranks(self) -> list[tuple[str, float, int]]:
        """Title, mean rank and number of leagues of each method, see `average_rank`."""
        return [(self.titles[method], rank, met) for method, rank, met in average_rank(self.entries)]

    def check(self) -> tuple[list[Pair], bool]:
        """Return the verdict on every measured series, and whether one is "below"."""
        judged = [pairs[0] for pairs in self.pairs.values()]
        return judged, any(pair["verdict"] == Verdict.BELOW for pair in judged)

    def explain(self, run_id: str) -> list[tuple[Pair, Entry, Entry]]:
        """Return the pairs of a run's series with both entries, the judging number first.

        Raises:
            BenchError: there is no such run, it is not done, or it is a trial of a search.
        """
        status = {run.run_id: run.state.status for run in self.results}
        if run_id not in status:
            raise BenchError(f"{run_id}: no such run{did_you_mean(run_id, status)}")
        if status[run_id] != "done":
            raise BenchError(f"{run_id}: the run is {status[run_id]}; only one that is done can be explained")
        key = next((one.key for one in self.done if one.run.run_id == run_id), None)
        if key is None:
            raise BenchError(f"{run_id}: evaluated on held-out training images; no published number compares")
        rows = {entry["key"]: entry for entry in self.entries}
        nothing = dict.fromkeys(rows[key])
        return [(pair, rows[key], rows.get(pair["place"], nothing)) for pair in self.pairs[key]]


def gather(results: Results, literature: Path = published.HOME) -> Board:
    """Read a results folder and the literature; a user's own published rows are in ``results/published``."""
    problems: list[str] = []
    shared = (results.root / "published").resolve() == literature.resolve()
    extra = [] if shared else sorted(results.root.glob("published/*.csv"))
    numbers = published.to_rows(published.load(*extra, folder=literature, problems=problems))
    own = [file for file in extra if file.name.endswith("methods.csv")]
    methods = published.load_methods(*own, folder=literature, problems=[])  # `load` has reported them
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
    """Make the leaderboard from what was read."""
    done = protocols(runs, numbers)
    controls = control_series(results.grids.values(), done)
    done = [replace(one, literature=None) if one.key in controls.only else one for one in done]
    found = entries(done, numbers, foreign)
    for named in controls.of.values():
        for name, key in named.items():
            if key in controls.only:
                next(entry for entry in found if entry["key"] == key)["control"] = name
    found = ranked(found)
    return Board(results, numbers, methods, done, found, compared(found), controls, problems)


def _fault(run: Result) -> str | None:
    """Return why a finished run cannot be shown, None if it can."""
    row = run.row
    if row["status"] == "unreadable":
        return str(row["reason"])
    if row["status"] == "done" and None in (row["accuracy"], row["title"], row["fingerprint_train"]):
        return "record.json: is done, but has no metrics, method or data; train it again by `run --force`"
    return None


def _lines(board: Board) -> list[Line]:
    """Make lines from entries and rank them: a method reported twice is one line."""
    titles = {number["method"]: number["title"] for number in board.numbers}
    series = grouped(sorted(board.done, key=lambda one: one.run.cell.seed), lambda one: one.key)
    tuned = _tuned(board.results)
    found = []
    for entry in board.entries:
        if entry["kind"] != "published":
            runs = tuple(one.run for one in series.get(entry["key"], ()))
            trials = tuned.get(runs[0].run_id) if runs else None
            found.append(Line(entry, pairs=board.pairs.get(entry["key"], ()), runs=runs, trials=trials))
    numbers = (entry for entry in board.entries if entry["kind"] == "published")
    reports = grouped(numbers, lambda entry: (entry["league"], entry["method"]))
    found += [_published(titles[method], members) for (_, method), members in reports.items()]
    ranks = {entry["key"]: entry["rank"] for entry in ranked(line.entry for line in rows(found))}
    return _with_controls(board.controls, [replace(line, rank=ranks.get(line.key)) for line in found])


def _tuned(results: Results) -> dict[str, int]:
    """Return by run id how many trials chose its settings; the first draw is untuned."""
    found = dict[str, int]()
    for grid in results.grids.values():
        for one in grid.search.methods if grid.search else ():
            for won in one.winners:
                if won.draw > 1:
                    found |= {run: min(won.budget, found.get(run, won.budget)) for run in won.runs}
    return found


def _with_controls(controls: ControlSeries, lines: Sequence[Line]) -> list[Line]:
    """Attach controls to their methods; a series that is only a control has no line."""
    every = {line.key: line for line in lines}
    own = _with_variants([line for line in lines if line.key not in controls.only])
    return [
        replace(line, controls={n: every[key] for n, key in controls.of.get(line.key, {}).items()})
        for line in own
    ]


def _with_variants(lines: Sequence[Line]) -> list[Line]:
    """Name the settings in which several series of one method in one league differ."""

    def key(line: Line) -> Any:
        return (line.league, line.entry["title"]) if line.runs else line.key

    found = []
    for members in grouped(lines, key).values():
        if len(members) > 1:
            names = variants([line.runs[0].cell for line in members])
            members = [replace(line, variant=name) for line, name in zip(members, names, strict=True)]
        found += members
    return found


def _published(title: str, reports: Sequence[Entry]) -> Line:
    """Join a method's reports of one league: the authors' own number, else the lower median."""
    line, by_metric = {**reports[0], "title": title}, dict[str, list[Entry]]()
    for metric in RANKED:
        known = sorted((e for e in reports if e[metric] is not None), key=lambda e: (e[metric], e["key"]))
        if not known:
            continue
        by_metric[metric] = known
        trusted = [e for e in known if not e["doubtful"]] or known
        chosen = [e for e in trusted if e["original"]] or trusted
        median = statistics.median_low([e[metric] for e in chosen])
        shown = next(e for e in chosen if e[metric] == median)
        line |= {metric: median, f"{metric}_std": shown[f"{metric}_std"]}
        if metric == "accuracy":
            line |= {name: shown[name] for name in _REPORT}
    return Line(line, reports=by_metric)


def _tabs(lines: Sequence[Line]) -> tuple[Tab, ...]:
    found = grouped(lines, lambda line: (line.entry["dataset"], line.entry["imbalance_factor"]))
    index = {name: i for i, name in enumerate(sets.ORDER)}
    keys = sorted(found, key=lambda key: (index.get(key[0], len(index)), key))
    return tuple(_tab(*key, sorted(found[key], key=_sort_key)) for key in keys)


def _tab(dataset: str, imbalance_factor: float, lines: Sequence[Line]) -> Tab:
    run = next((run for line in lines for run in line.runs), None)
    data = run.record["data"] if run else {}
    sizes, rule = sets.group_sizes(dataset, imbalance_factor), ShotRule()
    if run and not sizes:
        rule = run.cell.dataset.shots
        groups = shot_groups(np.array(data["class_counts"]), rule)
        sizes = {group: len(classes) for group, classes in groups.items()}
    if len({run.cell.dataset.profile for line in lines for run in line.runs} - {"natural"}) > 1:
        sizes = None  # each profile has its own
    natural = run is not None and (run.cell.dataset.profile == "natural" or imbalance_factor == 1)
    tail = sets.tail(data["class_counts"]) if natural else sets.known_tail(dataset)
    return Tab(
        dataset,
        imbalance_factor,
        tuple(lines),
        name=sets.title(dataset, data.get("title")),
        factor=None if tail else imbalance_factor,
        sizes=sizes,
        rule=rule,
        tail=tail,
    )


def _sort_key(line: Line) -> tuple[bool, float, str]:
    """Sort ours first, each by the metric that ranks it."""
    return line.kind == "published", -(line.entry[headline_of([line.entry])] or -1), line.key
