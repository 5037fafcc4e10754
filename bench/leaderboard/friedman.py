"""Methods across data sets: Friedman's test and Nemenyi's critical difference, after Demšar (JMLR 2006)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.leaderboard.compare import CONFIDENCE
from bench.leaderboard.entries import Entry
from bench.leaderboard.leagues import by_league, headline_of, method_medians, whole_methods

#: The fewest leagues and methods to test.
FEWEST_LEAGUES, FEWEST_METHODS = 3, 3

#: More methods than this are not worth losing a league.
ENOUGH_METHODS = 10


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of methods over leagues that have all of them, best first.

    Two methods that differ by at most `critical` are not distinguished. `p` is that of Friedman's test.
    """

    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    leagues: int
    p: float
    critical: float

    @property
    def alike(self) -> list[tuple[int, int]]:
        """The longest runs of methods that are not distinguished, as index of the first and the last."""
        found: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            last = max(i for i, other in enumerate(self.ranks) if other - rank <= self.critical)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def rank(values: np.ndarray, methods: Sequence[str]) -> Ranking:
    """Rank methods by values (leagues, methods), higher is better; ties share the mean of their ranks.

    The critical difference of k methods and N leagues is q sqrt(k (k + 1) / (6 N)), where q is the quantile
    of the studentised range over sqrt(2).
    """
    from scipy import stats  # type: ignore[import-untyped]  # slow to import

    n, k = values.shape
    ranks = stats.rankdata(-values, axis=1).mean(axis=0)
    order = sorted(range(k), key=lambda i: (ranks[i], methods[i]))
    constant = bool((values == values[:, :1]).all())
    p = 1.0 if constant else float(stats.friedmanchisquare(*values.T).pvalue)
    q = stats.studentized_range.ppf(CONFIDENCE, k, math.inf) / math.sqrt(2)
    critical = float(q * math.sqrt(k * (k + 1) / (6 * n)))
    return Ranking(tuple(methods[i] for i in order), tuple(float(ranks[i]) for i in order), n, p, critical)


def across(entries: Iterable[Entry]) -> Ranking | None:
    """Rank the methods that meet in most leagues, None if too few do.

    A data set with its imbalance factor counts once, by its fullest league. Starting from each league in
    turn, leagues are added greedily by how many common methods they keep. Of all sets of leagues found, the
    one with the largest product of leagues and methods is taken, counting at most `ENOUGH_METHODS` methods.

    Args:
        entries: as returned by `bench.leaderboard.leagues.ranked`.
    """
    tables = _tables(entries)
    best: tuple[int, list[Any], list[str]] | None = None
    for start in tables:
        chosen, common = [start], set(tables[start])
        left = [key for key in tables if key != start]
        while left:
            left.sort(key=lambda key: (-len(common & tables[key].keys()), str(key)))
            chosen, common = [*chosen, left[0]], common & tables[left.pop(0)].keys()
            if len(common) < FEWEST_METHODS:
                break
            found = len(chosen) * min(len(common), ENOUGH_METHODS), list(chosen), sorted(common)
            if len(chosen) >= FEWEST_LEAGUES and (best is None or found[0] > best[0]):
                best = found
    if best is None:
        return None
    _, leagues, methods = best
    return rank(np.array([[tables[key][method] for method in methods] for key in leagues]), methods)


def _tables(entries: Iterable[Entry]) -> dict[tuple[str, float], dict[str, float]]:
    """Return the medians by method in the fullest league of each data set and imbalance factor."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    for league, members in by_league(whole_methods(entries)).items():
        medians = method_medians(members, headline_of(members))
        key = league.dataset, league.imbalance_factor
        if len(medians) > len(found.get(key, ())):
            found[key] = medians
    return {key: found[key] for key in sorted(found)}
