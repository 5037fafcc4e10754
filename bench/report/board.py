"""The leaderboard: read from a results folder and the literature, and ordered into tabs of lines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import published
from bench.data.longtail import shot_groups
from bench.leaderboard import League, compared, entries, external, protocols, ranked
from bench.published import plain
from bench.records import Result, Results
from bench.report import sets
from bench.report.lines import SCORES, Line, Seeds, Tab
from bench.report.summary import differences

#: What is told of the report that a published method is shown by.
_TOLD = ("key", "n", "epochs", "selection", "reported_by", "original", "source", "year", "trust", "note")


@dataclass(frozen=True)
class Board:
    """All that the pages tell.

    `runs` are all runs, `done` those with numbers and their `key` (of `protocols`); `literature` and
    `methods` are the tables of `bench.published`, `entries` and `pairs` those of `bench.leaderboard`;
    `problems` are mistakes in what was read, whose rows are left out.
    """

    results: Results
    runs: pd.DataFrame
    done: pd.DataFrame
    literature: pd.DataFrame
    methods: pd.DataFrame
    entries: pd.DataFrame
    pairs: pd.DataFrame
    tabs: tuple[Tab, ...]
    problems: tuple[str, ...]

    @property
    def opening(self) -> Tab:
        """The tab that a reader sees first: both measured and published, then with most measured lines."""

        def rank(tab: Tab) -> tuple[bool, int, int]:
            both = 0 < tab.measured < len(tab.lines)
            return both, tab.measured, len(tab.leagues[tab.opening])

        return max(self.tabs, key=rank)


def gather(results: Results, literature: Path = published.HOME) -> Board:
    """Read a results folder and the literature; a user's own published rows lie in ``results/published``."""
    problems: list[str] = []
    shared = (results.root / "published").resolve() == literature.resolve()
    extra = [] if shared else sorted(results.root.glob("published/*.csv"))
    numbers = published.load(*extra, folder=literature, problems=problems)
    own = [file for file in extra if file.name.endswith("methods.csv")]
    methods = published.load_methods(*own, folder=literature, problems=[])  # told already
    runs = results.table()  # without a results folder there are no runs, and the literature is worth reading
    bare = (runs["status"] == "done") & runs[["accuracy", "title", "fingerprint_train"]].isna().any(axis=1)
    runs.loc[bare, "status"] = "unreadable"
    runs.loc[bare, "reason"] = (
        "record.json: says done, but has no metrics, method or data; rerun with --force"
    )
    runs["device_seconds"] = pd.array(_whole_time(runs), dtype="Float64")
    lost = runs[runs["status"] == "unreadable"]
    problems += [f"{run}: {why}" for run, why in zip(lost["run_id"], lost["reason"], strict=True)]
    done = protocols(runs, numbers)
    board = entries(runs, numbers, external.load(results.root, problems))
    pairs = compared(board)
    lines = _told_apart(results, _lines(ranked(board), numbers, done, pairs))
    return Board(results, runs, done, numbers, methods, board, pairs, _tabs(results, lines), tuple(problems))


def _whole_time(runs: pd.DataFrame) -> list[float | None]:
    """Return the device time of each run with all it starts from; None where part of it is not known."""
    rows = plain(runs[["run_id", "parent", "device_seconds"]])
    known = {row["run_id"]: row for row in rows}

    def seconds(row: Mapping[str, Any] | None) -> float | None:
        if row is None or row["device_seconds"] is None:
            return None
        before = seconds(known.get(row["parent"])) if row["parent"] else 0
        return None if before is None else float(row["device_seconds"] + before)

    return [seconds(row) for row in rows]


def _lines(
    board: pd.DataFrame, literature: pd.DataFrame, done: pd.DataFrame, pairs: pd.DataFrame
) -> list[Line]:
    """Make lines of entries, and rank them anew: a method that is reported twice is one line."""
    beside = dict[str, list[dict[str, Any]]]()
    for pair in plain(pairs):
        beside.setdefault(pair["key"], []).append(pair)
    titles = dict(zip(literature["method"], literature["title"], strict=True))
    of_series = dict(iter(done.groupby("key")))
    found, reported = list[Line](), dict[tuple[League, str], list[dict[str, Any]]]()
    for entry in plain(board):
        if entry["kind"] == "published":
            reported.setdefault((entry["league"], entry["method"]), []).append(entry)
        elif entry["kind"] == "measured":
            runs = of_series[entry["key"]]
            seeds = {score: _seeds(runs, score) for score in SCORES}
            ids = tuple(runs.sort_values("seed")["run_id"])
            found.append(Line(entry, entry["league"], pairs=beside[entry["key"]], seeds=seeds, runs=ids))
        else:
            found.append(Line(entry, entry["league"]))
    for (league, method), reports in reported.items():
        found.append(_published(league, titles[method], reports))
    table = pd.DataFrame([dict(line.entry) for line in found], columns=list(board.columns))
    places = ranked(table.astype({"accuracy": "Float64"}).drop(columns=["league", "rank", "of"]))["rank"]
    return [
        replace(line, rank=None if pd.isna(place) else int(place))
        for line, place in zip(found, places, strict=True)
    ]


def _told_apart(results: Results, lines: Sequence[Line]) -> list[Line]:
    """Say of series of one method in one league in which settings they differ."""
    alike: dict[Any, list[Line]] = {}
    for line in lines:
        alike.setdefault((line.league, line.entry["title"]) if line.runs else line.key, []).append(line)
    found = []
    for members in alike.values():
        if len(members) > 1:
            cells = [results[line.runs[0]].cell for line in members]
            said = zip(members, differences(cells), strict=True)
            members = [replace(line, variant=variant) for line, variant in said]
        found += members
    return found


def _seeds(runs: pd.DataFrame, score: str) -> Seeds:
    known = runs.dropna(subset=[score])
    return {int(seed): float(value) for seed, value in zip(known["seed"], known[score], strict=True)}


def _published(league: League, title: str, entries: Sequence[Mapping[str, Any]]) -> Line:
    """Join a method's reports of one league: its authors' own number, else the median that was printed."""
    line, told = {**entries[0], "title": title}, dict[str, list[Mapping[str, Any]]]()
    for score in SCORES:
        having = sorted((e for e in entries if e[score] is not None), key=lambda e: (e[score], e["key"]))
        if not having:
            continue
        told[score] = having
        trusted = [e for e in having if "doubtful" not in (e["note"] or "")] or having
        own = [e for e in trusted if e["original"]]
        middle = statistics.median_low([e[score] for e in own or trusted])
        chosen = next(e for e in own or trusted if e[score] == middle)
        line |= {score: middle, f"{score}_std": chosen[f"{score}_std"]}
        if score == "accuracy":
            line |= {name: chosen[name] for name in _TOLD}
    return Line(line, league, reports=told)


def _tabs(results: Results, lines: Sequence[Line]) -> tuple[Tab, ...]:
    found: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        found.setdefault((line.entry["dataset"], line.entry["imbalance_factor"]), []).append(line)
    order = {name: place for place, name in enumerate(sets.ORDER)}
    keys = sorted(found, key=lambda key: (order.get(key[0], len(order)), key))
    return tuple(_tab(results, *key, sorted(found[key], key=_before)) for key in keys)


def _tab(results: Results, dataset: str, imbalance_factor: float, lines: Sequence[Line]) -> Tab:
    run = next((results[run] for line in lines for run in line.runs), None)
    title = sets.title(dataset, imbalance_factor, run.record["data"]["title"] if run else None)
    return Tab(dataset, imbalance_factor, tuple(lines), title, _shots(dataset, imbalance_factor, run))


def _shots(dataset: str, imbalance_factor: float, run: Result | None) -> Mapping[str, str]:
    sizes = sets.group_sizes(dataset, imbalance_factor)
    if sizes or run is None:
        return sets.group_heads(sizes)
    rule = run.cell.dataset.shots
    groups = shot_groups(np.array(run.record["data"]["class_counts"]), rule)
    return sets.group_heads({name: len(classes) for name, classes in groups.items()}, rule)


def _before(line: Line) -> tuple[bool, float, str]:
    """Order lines: ours first, each by accuracy."""
    return line.kind == "published", -(line.entry["accuracy"] or -1), line.key
