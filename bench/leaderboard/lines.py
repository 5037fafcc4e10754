"""What pages and tables are made of: lines, each with its league, rank and verdict, in tabs.

A *line* is what one row of a page shows: a measured series, external predictions, or a published method with
all reports of it that share a league.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.cell import ShotRule
from bench.leaderboard.check import Pair
from bench.leaderboard.compare import Difference, Noise, best, difference, noise, tied
from bench.leaderboard.entries import Entry
from bench.leaderboard.leagues import League, headline_of, league_of
from bench.metrics import RANKED
from bench.records import Result, State

#: Scores of a series by seed.
Seeds = Mapping[int, float]


@dataclass(frozen=True)
class Line:
    """One row of a page.

    Attributes:
        entry: as of `bench.leaderboard.entries`; of a published method the authors' own numbers, else the
            medians of its reports.
        reports: of a published method, by score, all entries that have it, the lowest first.
        pairs: of a measured series, as of `compared`, the one it is judged by first.
        runs: of a measured series, its runs in the order of their seeds.
        variant: in what it differs from other series of its method beside it.
        controls: its controls by their names, each the same training without a part of the method.
    """

    entry: Entry
    rank: int | None = None
    reports: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()
    runs: tuple[Result, ...] = ()
    variant: str = ""
    controls: Mapping[str, Line] = field(default_factory=dict)

    @cached_property
    def league(self) -> League:
        """With which others it is ranked."""
        return league_of(self.entry)

    @property
    def kind(self) -> str:
        """What it is: measured, published or external."""
        return str(self.entry["kind"])

    @property
    def key(self) -> str:
        """Its unique name."""
        return str(self.entry["key"])

    @property
    def pair(self) -> Pair | None:
        """The published number that a measured series is judged by, None if there is none."""
        return self.pairs[0] if self.pairs and self.pairs[0]["d"] is not None else None

    @property
    def judged(self) -> bool:
        """Whether a published number of its own protocol stands beside it."""
        return self.pair is not None and not self.pair["differs"]

    @property
    def reported(self) -> float | None:
        """The published number that its row shows: its own, or the one that judges what was measured."""
        if self.kind == "published":
            return self.entry["accuracy"]
        return self.pair["published"] if self.pair and self.judged else None

    @property
    def doubtful(self) -> bool:
        """Whether that number itself is in doubt."""
        return bool(self.pair["doubtful"] if self.pair else self.entry["doubtful"])

    @property
    def single(self) -> bool:
        """Whether it was measured with one seed, which says nothing of its noise."""
        return self.kind != "published" and self.entry["n"] == 1

    @property
    def page(self) -> str | None:
        """The name of a measured series' page."""
        if self.kind != "measured":
            return None
        axes = f"{self.entry['dataset']}-if{self.entry['imbalance_factor']:g}-{self.entry['method']}"
        return re.sub(r"[^A-Za-z0-9_.+]+", "-", f"{axes}-{self.key}").strip("-") + ".html"

    def by_seed(self, score: str) -> Seeds:
        """Return a score by seed; external predictions share no seed with ours."""
        if self.runs:
            return {run.cell.seed: run.row[score] for run in self.runs if run.row[score] is not None}
        value = self.entry[score]
        return {} if value is None or self.kind == "measured" else {-1: value}

    def values(self, name: str) -> list[float]:
        """Return what is known of a column of its runs."""
        return [float(run.row[name]) for run in self.runs if run.row[name] is not None]

    def adds(self, control: Line) -> Difference:
        """Return by how much it is better than one of its controls, over their common seeds."""
        return difference(self.by_seed("accuracy"), control.by_seed("accuracy"))


@dataclass(frozen=True)
class Asked(Line):
    """A series that a recipe asks for, whatever became of it.

    Attributes:
        label: the recipe's name for the method.
        asked: all its runs, in the order of the recipe; `runs` are those that are done.
        states: how each stands.
        split: where a method's seeds were measured on different splits, the one of this line.
        control: of a control, its name; `whole` is then the line that it stands beneath.
    """

    label: str = ""
    asked: tuple[Result, ...] = ()
    states: Mapping[str, State] = field(default_factory=dict)
    split: str = ""
    control: str = ""
    whole: Asked | None = None

    @property
    def name(self) -> str:
        """The method's title, or its label as long as no run has told it; of a control, its own."""
        if self.whole:
            return f"↳ {self.control.replace('_', ' ')}"
        return str(self.entry["title"] or self.label)

    @property
    def begun(self) -> bool:
        """Whether anything is known of any of its runs."""
        return any(self.states[run.run_id].status != "missing" for run in self.asked)

    @property
    def not_done(self) -> list[tuple[str, str | None, list[int]]]:
        """Status, reason and seeds of what is not done."""
        found = dict[tuple[str, str | None], list[int]]()
        for run in self.asked:
            state = self.states[run.run_id]
            if state.status != "done":
                found.setdefault((state.status, state.reason), []).append(run.cell.seed)
        return [(*key, seeds) for key, seeds in found.items()]


@dataclass(frozen=True)
class Tab:
    """One data set with one imbalance factor: its lines, ours first, each by accuracy.

    `name` is the data set's for readers; `factor` is None where it comes with its own tail, and `tail` then
    says how long that is, if it is known. `sizes` are the numbers of classes in the shot groups of `rule`,
    None where they are not known.
    """

    dataset: str
    imbalance_factor: float
    lines: tuple[Line, ...]
    name: str
    factor: float | None
    sizes: Mapping[str, int] | None
    rule: ShotRule
    tail: str = ""

    @property
    def title(self) -> str:
        """Its name with the imbalance factor, or with its own tail."""
        if self.factor is None:
            return ", ".join(filter(None, (self.name, self.tail)))
        return f"{self.name}, imbalance factor {self.factor:g}"

    @property
    def measured_lines(self) -> list[Line]:
        """All that has a page: its measured lines and their controls, each once."""
        every = [one for line in self.lines for one in (line, *line.controls.values())]
        return list({line.key: line for line in every if line.kind == "measured"}.values())

    @property
    def anchor(self) -> str:
        """Its name within a page."""
        return f"{self.dataset}-{self.imbalance_factor:g}"

    @cached_property
    def leagues(self) -> dict[League, list[Line]]:
        """Its leagues, those with most judged lines first, then most measured ones, then the fullest."""
        found: dict[League, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.league, []).append(line)

        def place(league: League) -> tuple[Any, ...]:
            lines, said = found[league], ["not stated" if v is None else str(v) for v in league.protocol]
            return -sum(line.judged for line in lines), -_measured(lines), -len(lines), said

        return {league: found[league] for league in sorted(found, key=place)}

    @property
    def opening(self) -> League:
        """The league that a reader sees first."""
        return next(iter(self.leagues))

    @property
    def measured(self) -> int:
        """How many of its lines are measured."""
        return _measured(self.lines)


def rows(lines: Iterable[Line]) -> list[Line]:
    """Return what has a row of its own: a published number that judges a measured line stands in its row.

    If it is of another league, since it leaves a field unstated, it has a row there too.
    """
    known = list(lines)
    told = {(line.league, line.pair["place"]) for line in known if line.pair and line.judged}
    return [
        line
        for line in known
        if line.kind != "published"
        or told.isdisjoint((line.league, entry["key"]) for entry in line.reports.get("accuracy", ()))
    ]


@dataclass(frozen=True)
class Marks:
    """What is marked among lines, by score; "published" is the published accuracy.

    `bold` has keys, `ties` by key the numbers of the lines that noise does not let it be told from.
    """

    bold: Mapping[str, set[str]]
    ties: Mapping[str, Mapping[str, Sequence[str]]]


def marks(lines: Sequence[Line], *, groups: Sequence[Any] | None = None, ties: bool = False) -> Marks:
    """Mark lines in each of `RANKED`, and in balanced accuracy where that ranks them.

    Bold is, among the lines of one group (by default their league), the best that was measured over three
    seeds or more, and all whose difference to it may be noise, as `bench.leaderboard.compare` has it; and the
    best that was published, of whose noise nothing is known.
    """
    rivals = dict[Any, list[Line]]()
    for line, group in zip(lines, groups or [line.league for line in lines], strict=True):
        rivals.setdefault(group, []).append(line)
    scores = tuple(dict.fromkeys((headline_of(line.entry for line in lines), *RANKED)))
    bold = {
        s: {key for members in rivals.values() for key in strong(members, s)} for s in (*scores, "published")
    }
    numbers = {line.key: str(number) for number, line in enumerate(lines)}
    ours = [line for line in lines if line.kind != "published"] if ties else []
    alike = {s: _tied(rivals.values(), ours, s) for s in scores}
    return Marks(
        bold, {s: {k: [numbers[o] for o in others] for k, others in alike[s].items()} for s in scores}
    )


def _tied(groups: Iterable[Sequence[Line]], ours: Sequence[Line], score: str) -> dict[str, list[str]]:
    noises = dict[str, Noise]()
    for members in groups:
        scores = {line.key: line.by_seed(score) for line in members if line.kind != "published"}
        noises |= dict.fromkeys(scores, noise(scores))
    return tied({line.key: line.by_seed(score) for line in ours}, noises)


def strong(lines: Sequence[Line], score: str) -> set[str]:
    """Return the keys of what is bold in a column of lines that are ranked together."""
    if score == "published":
        return _highest({line.key: line.reported for line in lines if not line.doubtful})
    ours = {line.key: line.by_seed(score) for line in lines if line.kind != "published"}
    if score == "accuracy":
        return best(ours)
    return best(ours) | _highest({line.key: line.entry[score] for line in lines if line.kind == "published"})


def _highest(values: Mapping[str, float | None]) -> set[str]:
    top = max((value for value in values.values() if value is not None), default=None)
    return {key for key, value in values.items() if value is not None and value == top}


def _measured(lines: Sequence[Line]) -> int:
    return sum(line.kind == "measured" for line in lines)
