"""Leagues: entries are ranked only against entries that were made under the same conditions.

A field that is not known is a value of its own: two entries that do not state their epochs are not known to
share them with any that do.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.leaderboard.entries import Entry
from bench.leaderboard.protocols import FIELDS

#: A league of fewer methods enters no average: first of two says little.
FEWEST = 5

#: The fields of the protocol that a league shares.
SHARED = tuple(name for name, field in FIELDS.items() if field.league)


@dataclass(frozen=True)
class League:
    """What entries share that are ranked together; `protocol` has a value for each of `SHARED`."""

    dataset: str
    imbalance_factor: float
    protocol: tuple[Any, ...]

    def __getitem__(self, field: str) -> Any:
        """Return a field of the protocol, None for "not stated"."""
        return self.protocol[SHARED.index(field)]


def league_of(entry: Entry) -> League:
    """Return the league of an entry."""
    return League(entry["dataset"], entry["imbalance_factor"], tuple(entry[name] for name in SHARED))


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with their `league`, their `rank` in it and `of`, how many are ranked there.

    What was measured or scored here is ranked by accuracy, or by balanced accuracy where the test set of one
    is not balanced; and so, apart from it, is what was published: a verdict tells how the two compare. Equal
    values share the better rank; a control, or an entry without a value, has no rank and counts nowhere.
    """
    found = [entry | {"league": league_of(entry), "rank": None, "of": 0} for entry in entries]
    rivals = dict[Any, list[Entry]]()
    for entry in found:
        rivals.setdefault((entry["league"], entry["kind"] == "published"), []).append(entry)
    for members in rivals.values():
        name = headline_of(members)
        known = [entry for entry in members if entry[name] is not None and entry["control"] is None]
        falling = sorted(-entry[name] for entry in known)
        for entry in members:
            entry["of"] = len(known)
        for entry in known:
            entry["rank"] = bisect_left(falling, -entry[name]) + 1
    return found


def headline_of(entries: Iterable[Entry]) -> str:
    """Name the metric that ranks entries beside each other."""
    return "balanced" if any(entry["headline"] == "balanced" for entry in entries) else "accuracy"


def by_league(entries: Iterable[Entry]) -> dict[League, list[Entry]]:
    """Gather ranked entries by their league."""
    found = dict[League, list[Entry]]()
    for entry in entries:
        found.setdefault(entry["league"], []).append(entry)
    return found


def average_rank(entries: Iterable[Entry], fewest: int = FEWEST) -> list[tuple[str, float, int]]:
    """Return each method's mean rank within leagues, and how many leagues it rests on, ordered by mean rank.

    A method enters a league once, with the median of its entries there, so that it neither gains nor loses
    by being reported often; ties share the mean of their ranks. Controls are left out. A league of less than
    `fewest` methods counts for nothing. Two methods are comparable only as far as they met in the same
    leagues.

    Args:
        entries: as of `ranked`.
    """
    places = dict[str, list[float]]()
    known = (entry for entry in entries if entry["accuracy"] is not None and entry["control"] is None)
    for members in by_league(known).values():
        scores = dict[str, list[float]]()
        for entry in members:
            scores.setdefault(entry["method"], []).append(entry["accuracy"])
        if len(scores) < fewest:
            continue
        medians = {method: statistics.median(values) for method, values in scores.items()}
        for method, rank in zip(medians, _mean_ranks(list(medians.values())), strict=True):
            places.setdefault(method, []).append(rank)
    found = [(method, statistics.fmean(ranks), len(ranks)) for method, ranks in places.items()]
    return sorted(found, key=lambda row: (row[1], row[0]))


def _mean_ranks(values: Sequence[float]) -> list[float]:
    """Rank values, the highest first; equal ones share the mean of their ranks."""
    falling = sorted(-value for value in values)
    first = {value: falling.index(value) for value in set(falling)}
    count = {value: falling.count(value) for value in first}
    return [first[-value] + (count[-value] + 1) / 2 for value in values]
