"""Leagues: entries are ranked only against entries of the same protocol.

"Not stated" counts as a value: an entry that does not state its epochs shares a league with others that do
not, and with none that does.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.leaderboard.entries import Entry
from bench.leaderboard.grouping import grouped
from bench.leaderboard.protocols import FIELDS

#: A league of fewer methods enters no average rank.
FEWEST = 5

#: The protocol fields that define a league.
SHARED = tuple(name for name, field in FIELDS.items() if field.league)


@dataclass(frozen=True)
class League:
    """What entries that are ranked together share; `protocol` has a value for each of `SHARED`."""

    dataset: str
    imbalance_factor: float
    protocol: tuple[Any, ...]

    def __getitem__(self, field: str) -> Any:
        """Return a field of the protocol, None if not stated."""
        return self.protocol[SHARED.index(field)]


def league_of(entry: Entry) -> League:
    """Return the league of an entry."""
    return League(entry["dataset"], entry["imbalance_factor"], tuple(entry[name] for name in SHARED))


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with their `league`, their `rank` in it and `of`, the number of ranked entries.

    Entries are ranked by accuracy, or by balanced accuracy if the test set of one is not balanced; published
    entries are ranked separately from the others. Equal values share the better rank; a control, a doubtful
    number or an entry without a value is not ranked.
    """
    found = [entry | {"league": league_of(entry), "rank": None, "of": 0} for entry in entries]
    for members in grouped(found, lambda entry: (entry["league"], entry["kind"] == "published")).values():
        name = headline_of(members)
        known = [entry for entry in members if entry[name] is not None and _may_rank(entry)]
        falling = sorted(-entry[name] for entry in known)
        for entry in members:
            entry["of"] = len(known)
        for entry in known:
            entry["rank"] = bisect_left(falling, -entry[name]) + 1
    return found


def headline_of(entries: Iterable[Entry]) -> str:
    """Name the metric by which entries of one league are ranked."""
    return "balanced" if any(entry["headline"] == "balanced" for entry in entries) else "accuracy"


def by_league(entries: Iterable[Entry]) -> dict[League, list[Entry]]:
    """Group ranked entries by league."""
    return grouped(entries, lambda entry: entry["league"])


def average_rank(entries: Iterable[Entry], fewest: int = FEWEST) -> list[tuple[str, float, int]]:
    """Return method, mean relative rank within leagues and number of leagues, sorted by mean rank.

    The relative rank is 0 for the best and 100 for the last of a league, however many it has. A method enters
    a league once, with the median of its entries, so that being reported often is neither an advantage nor a
    disadvantage; ties share the mean of their ranks. A league of fewer than `fewest` methods is left out, and
    one in which nothing is published. Two methods are comparable only as far as they met in the same leagues.

    Args:
        entries: as returned by `ranked`.
    """
    ranks = dict[str, list[float]]()
    for members in by_league(whole_methods(entries)).values():
        medians = method_medians(members, headline_of(members))
        if len(medians) >= fewest and any(entry["kind"] == "published" for entry in members):
            places = pd.Series(medians).rank(ascending=False)
            for method, place in (100 * (places - 1) / (len(places) - 1)).items():
                ranks.setdefault(str(method), []).append(place)
    found = [(method, statistics.fmean(values), len(values)) for method, values in ranks.items()]
    return sorted(found, key=lambda row: (row[1], row[0]))


def whole_methods(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries of whole methods: no controls, and no first stage of what was published in two.

    Doubtful numbers are left out, too.
    """
    known = [entry for entry in entries if _may_rank(entry)]
    literature = {_method(entry) for entry in known if entry["kind"] == "published" or entry["literature"]}
    return [
        entry
        for entry in known
        if entry["kind"] == "published" or entry["literature"] or entry["method"] not in literature
    ]


def method_medians(entries: Iterable[Entry], metric: str) -> dict[str, float]:
    """Return the median of a metric by method, over the entries that have it.

    Methods have the literature's names: the second stages of several encoders are several methods there.
    """
    return {
        method: statistics.median(entry[metric] for entry in members)
        for method, members in grouped((e for e in entries if e[metric] is not None), _method).items()
    }


def _may_rank(entry: Entry) -> bool:
    return entry["control"] is None and not entry["doubtful"]


def _method(entry: Entry) -> str:
    return str(entry["literature"] or entry["method"])
