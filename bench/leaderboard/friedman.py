"""Methods across data sets: Friedman's test of their ranks, and Nemenyi's critical difference.

After Demšar (JMLR 2006).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.leaderboard.compare import CONFIDENCE
from bench.leaderboard.entries import Entry
from bench.leaderboard.leagues import by_league, headline_of

#: Fewer leagues or methods are not tested.
FEWEST_LEAGUES, FEWEST_METHODS = 3, 3

#: More methods than these are not worth a league less.
ENOUGH_METHODS = 10


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of methods over leagues in which all of them are, the best first.

    Two that differ by less than `critical` are not told apart. `p` is Friedman's, of all being alike.
    """

    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    leagues: int
    p: float
    critical: float

    @property
    def alike(self) -> list[tuple[int, int]]:
        """The longest stretches, first to last place, of methods that are not told apart."""
        found: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            last = max(place for place, other in enumerate(self.ranks) if other - rank <= self.critical)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def rank(scores: np.ndarray, methods: Sequence[str]) -> Ranking:
    """Rank methods by scores (leagues, methods), higher is better; ties share the mean of their ranks.

    The critical difference is q sqrt(k (k + 1) / (6 N)) of k methods and N leagues; q is the quantile of
    the studentised range over sqrt(2).
    """
    from scipy import stats  # type: ignore[import-untyped]  # which takes a second

    n, k = scores.shape
    ranks = stats.rankdata(-scores, axis=1).mean(axis=0)
    order = sorted(range(k), key=lambda place: (ranks[place], methods[place]))
    flat = bool((scores == scores[:, :1]).all())
    p = 1.0 if flat else float(stats.friedmanchisquare(*scores.T).pvalue)
    q = stats.studentized_range.ppf(CONFIDENCE, k, math.inf) / math.sqrt(2)
    critical = float(q * math.sqrt(k * (k + 1) / (6 * n)))
    names, means = tuple(methods[place] for place in order), tuple(float(ranks[place]) for place in order)
    return Ranking(names, means, n, p, critical)


def across(entries: Iterable[Entry]) -> Ranking | None:
    """Rank the methods that meet in most leagues, None where too few do.

    A data set with its imbalance factor counts once, by its fullest league. A method has the median of its
    entries there. From each league on, the one is added that keeps most methods; of all found so, most
    leagues times methods is taken, where methods count up to `ENOUGH_METHODS`.

    Args:
        entries: as of `bench.leaderboard.leagues.ranked`.
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
    """Return each data set's scores by method, in its fullest league."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    for league, members in by_league(entries).items():
        name, scores = headline_of(members), dict[str, list[float]]()
        for entry in members:
            if entry[name] is not None and entry["control"] is None:
                scores.setdefault(entry["method"], []).append(entry[name])
        medians = {method: statistics.median(values) for method, values in scores.items()}
        key = league.dataset, league.imbalance_factor
        if len(medians) > len(found.get(key, ())):
            found[key] = medians
    return {key: found[key] for key in sorted(found)}
