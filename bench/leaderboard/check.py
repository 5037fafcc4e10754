"""Measured against published: which number is held against which, and what their protocols say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.errors import BenchError, did_you_mean
from bench.leaderboard.entries import entries
from bench.leaderboard.protocols import protocols
from bench.leaderboard.verdict import Verdict, verdict
from bench.published import TRUST, plain

#: Protocol fields in which two numbers of the same method and data set may differ.
FIELDS = (
    "backbone",
    "width_class",
    "epochs",
    "augmentation",
    "experts",
    "pretraining",
    "extra_data",
    "data_copy",
)


def compared(board: pd.DataFrame) -> pd.DataFrame:
    """Set every measured entry beside every published number of its method, data set and factor.

    A number chosen as the best epoch on the test set is set beside our best on test (`ours` is
    "best_test"), any other beside our last epoch. `differs` and `unstated` name protocol fields; a number
    whose choice of epoch is not stated, or was made on a validation set we do not have, has "selection"
    among the unstated. `reference` marks the one number by which a cell is judged: most fields known to be
    the same, then fewest known differences, not doubtful, its authors' own, surest read, latest. `low`,
    `high` and `reports` tell the range of all numbers whose known differences are the reference's.

    Returns:
        One row per pair, and one with verdict "no published number" per entry without any.
    """
    pool = board[(board["kind"] == "published") & board["accuracy"].notna()]
    groups = pool.groupby(["dataset", "imbalance_factor", "literature"])
    found = []
    for entry in plain(board[board["kind"] == "measured"]):
        cell = (entry["dataset"], entry["imbalance_factor"], entry["literature"])
        numbers = plain(groups.get_group(cell)) if cell in groups.groups else []
        pairs = [_pair(entry, number) for number in numbers]
        pairs.sort(key=_preference)
        alike = [pair["published"] for pair in pairs if pair["differs"] == pairs[0]["differs"]]
        told = {"low": min(alike, default=None), "high": max(alike, default=None), "reports": len(alike)}
        for place, pair in enumerate(pairs or [_alone(entry)]):
            found.append(pair | told | {"reference": place == 0})
    columns = [*_alone(dict.fromkeys(board.columns)), "low", "high", "reports", "reference"]
    types = dict.fromkeys(("measured", "s", "published", "d", "low", "high"), "Float64")
    types |= {"n": "Int64", "reports": "Int64"}
    return pd.DataFrame(found, columns=columns).astype(types | {"reference": "bool"})


def check(board: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return the verdict on every measured cell, and whether one is "below"."""
    table = compared(board)
    table = table[table["reference"]].reset_index(drop=True)
    return table, bool((table["verdict"] == Verdict.BELOW).any())


@dataclass(frozen=True)
class Explanation:
    """Both protocols side by side, for one measured entry and one published number.

    `pair` is the row of `compared`; `fields` has field, measured, published, and what is to be said of
    them: "same", "differs", "not stated", or "" where there is nothing to hold against the other.
    """

    pair: dict[str, Any]
    fields: list[tuple[str, str, str, str]]


def explain(runs: pd.DataFrame, published: pd.DataFrame, run_id: str) -> list[Explanation]:
    """Explain a run's series beside each published number of its method, the reference first.

    Raises:
        BenchError: there is no such run, or it is not done.
    """
    known = runs.set_index("run_id")["status"]
    if run_id not in known.index:
        raise BenchError(f"{run_id}: no such run{did_you_mean(run_id, known.index)}")
    if known[run_id] != "done":
        raise BenchError(f"{run_id}: the run is {known[run_id]}; only one that is done can be explained")
    keys = protocols(runs, published).set_index("run_id")["key"]
    if run_id not in keys.index:
        raise BenchError(f"{run_id}: scored on held-out training images; nothing published is like it")
    key = keys[run_id]
    board = entries(runs, published)
    rows = {row["key"]: row for row in plain(board)}
    nothing = dict.fromkeys(board.columns)
    pairs = plain(compared(board[(board["key"] == key) | (board["kind"] == "published")]))
    found = [(pair, rows.get(pair["place"], nothing)) for pair in pairs]
    return [Explanation(pair, side_by_side(rows[key], number, pair["ours"])) for pair, number in found]


def _pair(entry: dict[str, Any], number: dict[str, Any]) -> dict[str, Any]:
    states = {name: _state(entry[name], number[name]) for name in FIELDS}
    ours = (
        "best_test" if number["selection"] == "best_test" and entry["best_accuracy"] is not None else "last"
    )
    score = "best_accuracy" if ours == "best_test" else "accuracy"
    mean, std, n = entry[score], entry[f"{score}_std"], entry["n"] or 0
    d = None if mean is None else mean - number["accuracy"]
    s = None if std is None else std / math.sqrt(n)
    differs = [name for name, state in states.items() if state == "differs"]
    unstated = [name for name, state in states.items() if state == "not stated"]
    if number["selection"] != ours:
        unstated.append("selection")
    return _alone(entry) | {
        "ours": ours,
        "measured": mean,
        "s": s,
        "published": number["accuracy"],
        "d": d,
        "verdict": verdict(d, s, n, differs),
        "differs": differs,
        "unstated": unstated,
        "selection": number["selection"],
        "place": number["key"],
        "label": number["title"],
        **{name: number[name] for name in ("reported_by", "source", "original", "year", "trust", "note")},
    }


def _alone(entry: dict[Any, Any]) -> dict[str, Any]:
    """Return the row of an entry beside which nothing is published."""
    told = {name: entry[name] for name in ("key", "title", "method", "dataset", "imbalance_factor", "n")}
    told |= {"ours": "last", "measured": entry["accuracy"], "s": None, "published": None, "d": None}
    told |= {"verdict": Verdict.NONE, "differs": [], "unstated": [], "selection": None, "place": None}
    return told | dict.fromkeys(("label", "reported_by", "source", "original", "year", "trust", "note"))


def _preference(pair: dict[str, Any]) -> tuple[Any, ...]:
    doubtful = "doubtful" in (pair["note"] or "")
    unlike = len(pair["differs"]) + len(pair["unstated"])
    sure = (not pair["original"], TRUST.index(pair["trust"]), -(pair["year"] or 0))
    source = (pair["reported_by"], pair["published"], pair["place"])
    return unlike, len(pair["differs"]), doubtful, *sure, *source


def _state(ours: Any, theirs: Any) -> str:
    if ours is None or theirs in (None, "mixed"):
        return "not stated"
    return "same" if ours == theirs else "differs"


def side_by_side(
    entry: Mapping[str, Any], number: Mapping[str, Any], ours: str
) -> list[tuple[str, str, str, str]]:
    """Return the `fields` of an `Explanation`: of a measured and a published entry, and a pair's `ours`.

    The accuracy is the one compared, of our best epoch on the test set or our last; shot groups are of the
    last.
    """
    rows = [(name, entry[name], number[name], _state(entry[name], number[name])) for name in FIELDS]
    rows.append(("selection", ours, number["selection"], _state(ours, number["selection"])))
    rows.append(("seeds", entry["n"], number["n"], ""))
    compared = entry["best_accuracy"] if ours == "best_test" else entry["accuracy"]
    rows.append(("accuracy", compared, number["accuracy"], ""))
    rows += [(name, entry[name], number[name], "") for name in ("many", "medium", "few")]
    return [(name, _say(mine), _say(theirs), state) for name, mine, theirs, state in rows]


def _say(value: Any) -> str:
    return "n/a" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
