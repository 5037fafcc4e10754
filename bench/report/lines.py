"""What the leaderboard's pages are made of: lines, each with its league, rank and verdict, in tabs.

A *line* is what one row of a page shows: a measured series, external predictions, or a published method with
all reports of it that share a league.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

from bench.leaderboard import League, best, difference

#: Scores that a method is shown by; the first decides the rank.
SCORES = ("accuracy", "many", "medium", "few")

#: Scores of a series by seed.
Seeds = Mapping[int, float]


@dataclass(frozen=True)
class Line:
    """One row of a page.

    Attributes:
        entry: as of `bench.leaderboard.entries`, None for what is not known; of a published method the
            authors' own numbers, else the medians of its reports.
        reports: of a published method, by score, all entries that have it, the lowest first.
        pairs: of a measured series, its rows of `compared`, the one it is judged by first.
        seeds: of a measured series, each score by seed.
        runs: of a measured series, the ids of its runs.
        variant: in what it differs from other series of its method in its league.
    """

    entry: Mapping[str, Any]
    league: League
    rank: int | None = None
    reports: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    pairs: Sequence[Mapping[str, Any]] = ()
    seeds: Mapping[str, Seeds] | None = None
    runs: tuple[str, ...] = ()
    variant: str = ""

    @property
    def kind(self) -> str:
        """What it is: measured, published or external."""
        return str(self.entry["kind"])

    @property
    def key(self) -> str:
        """Its unique name."""
        return str(self.entry["key"])

    @property
    def pair(self) -> Mapping[str, Any] | None:
        """The row of `compared` that a measured series is judged by."""
        return self.pairs[0] if self.pairs else None

    @property
    def page(self) -> str | None:
        """The name of a measured series' page."""
        if self.kind != "measured":
            return None
        axes = f"{self.entry['dataset']}-if{self.entry['imbalance_factor']:g}-{self.entry['method']}"
        return re.sub(r"[^A-Za-z0-9_.+]+", "-", f"{axes}-{self.key}").strip("-") + ".html"

    def by_seed(self, score: str) -> Seeds:
        """Return a score by seed; external predictions share no seed with ours."""
        if self.seeds is not None:
            return self.seeds.get(score, {})
        value = self.entry[score]
        return {} if value is None else {-1: value}


@dataclass(frozen=True)
class Tab:
    """One data set with one imbalance factor: its lines, ours first, each by accuracy.

    `title` is its name for readers, `shots` are heads for the columns of its shot groups.
    """

    dataset: str
    imbalance_factor: float
    lines: tuple[Line, ...]
    title: str
    shots: Mapping[str, str]

    @property
    def anchor(self) -> str:
        """Its name within a page."""
        return f"{self.dataset}-{self.imbalance_factor:g}"

    @cached_property
    def leagues(self) -> dict[League, list[Line]]:
        """Its leagues, those with most measured lines and then the fullest first."""
        found: dict[League, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.league, []).append(line)
        return dict(
            sorted(found.items(), key=lambda item: (-_measured(item[1]), -len(item[1]), str(item[0])))
        )

    @property
    def opening(self) -> League:
        """The league that a reader sees first."""
        return next(iter(self.leagues))

    @property
    def measured(self) -> int:
        """How many of its lines are measured."""
        return _measured(self.lines)


def strong(lines: Sequence[Line], score: str) -> set[str]:
    """Return the keys of what is bold among lines that are ranked together.

    The best that was measured over several seeds, and all whose paired difference to it may be noise; and the
    best that was published, of whose noise nothing is known.
    """
    ours = {line.key: line.by_seed(score) for line in lines if line.kind != "published"}
    theirs = {
        line.key: line.entry[score]
        for line in lines
        if line.kind == "published" and line.entry[score] is not None
    }
    top = max(theirs.values(), default=None)
    return best(ours) | {key for key, value in theirs.items() if value == top}


def ties(lines: Sequence[Line], score: str) -> dict[str, list[str]]:
    """Return for each line of ours with several seeds the keys that noise does not let it be told from."""
    scores = {line.key: line.by_seed(score) for line in lines if line.kind != "published"}
    found = {key: list[str]() for key, seeds in scores.items() if len(seeds) > 1}
    for one, other in combinations(found, 2):
        if difference(scores[one], scores[other]).includes_zero:
            found[one].append(other)
            found[other].append(one)
    return found


def _measured(lines: Sequence[Line]) -> int:
    return sum(line.kind == "measured" for line in lines)
