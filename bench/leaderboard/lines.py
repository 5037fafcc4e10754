"""Lines, each with its league, rank and verdict, grouped into tabs: the contents of pages and tables.

A *line* is one row of a page: a measured series, external predictions, or a published method with all its
reports of one league.
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
from bench.leaderboard.entries import Entry, mean
from bench.leaderboard.grouping import grouped
from bench.leaderboard.leagues import League, headline_of, league_of
from bench.metrics import RANKED
from bench.result import Result
from bench.rundir import State

#: A metric of a series by seed.
Seeds = Mapping[int, float]


@dataclass(frozen=True)
class Line:
    """One row of a page.

    Attributes:
        entry: see `bench.leaderboard.entries`; for a published method the authors' own numbers, else the
            medians of its reports.
        reports: for a published method, all entries by metric, lowest first.
        pairs: for a measured series, see `compared`; it is judged by the first.
        runs: for a measured series, its runs by ascending seed.
        variant: the settings that distinguish it from other series of its method in the league.
        controls: its controls by name, each the same training without a part of the method.
        trials: for settings that a search chose, the number of trials among which they won.
    """

    entry: Entry
    rank: int | None = None
    reports: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()
    runs: tuple[Result, ...] = ()
    variant: str = ""
    controls: Mapping[str, Line] = field(default_factory=dict)
    trials: int | None = None

    @cached_property
    def league(self) -> League:
        """Its league."""
        return league_of(self.entry)

    @property
    def kind(self) -> str:
        """Measured, published or external."""
        return str(self.entry["kind"])

    @property
    def key(self) -> str:
        """Its unique name."""
        return str(self.entry["key"])

    @property
    def title(self) -> str:
        """The method's title, with the variant in brackets."""
        return str(self.entry["title"]) + (f" [{self.variant}]" if self.variant else "")

    @property
    def pair(self) -> Pair | None:
        """The pair with the published number that judges a measured series, None without one."""
        return self.pairs[0] if self.pairs and self.pairs[0]["d"] is not None else None

    @property
    def judged(self) -> bool:
        """Whether a published number has its protocol."""
        return self.pair is not None and not self.pair["differs"]

    @property
    def reported(self) -> float | None:
        """The published number in its row: its own, or the one that judges the measured series."""
        if self.kind == "published":
            return self.entry["accuracy"]
        return self.pair["published"] if self.pair and self.judged else None

    @property
    def doubtful(self) -> bool:
        """Whether that published number is doubtful."""
        return bool(self.pair["doubtful"] if self.pair else self.entry["doubtful"])

    @property
    def single(self) -> bool:
        """Whether it was measured with one seed."""
        return self.kind != "published" and self.entry["n"] == 1

    @property
    def page(self) -> str | None:
        """The file name of a measured series' page."""
        if self.kind != "measured":
            return None
        axes = f"{self.entry['dataset']}-if{self.entry['imbalance_factor']:g}-{self.entry['method']}"
        return re.sub(r"[^A-Za-z0-9_.+]+", "-", f"{axes}-{self.key}").strip("-") + ".html"

    def by_seed(self, metric: str) -> Seeds:
        """Return a metric by seed; external predictions have seed -1, which no run has."""
        if self.runs:
            return {run.cell.seed: run.row[metric] for run in self.runs if run.row[metric] is not None}
        value = self.entry[metric]
        return {} if value is None or self.kind == "measured" else {-1: value}

    def mean(self, name: str) -> float | None:
        """Return the mean of a column of its runs."""
        return mean([float(run.row[name]) for run in self.runs if run.row[name] is not None])

    def adds(self, control: Line) -> Difference:
        """Return its accuracy, or balanced accuracy if that ranks, minus a control's, over common seeds."""
        metric = headline_of([self.entry])
        return difference(self.by_seed(metric), control.by_seed(metric))


@dataclass(frozen=True)
class RecipeLine(Line):
    """A series that a recipe asks for, finished or not.

    Attributes:
        label: the recipe's name for the method.
        requested: all its runs in recipe order; `runs` are those that are done.
        states: the state of each.
        split: its split, if the seeds of the method were measured on several.
        control: the name of a control; `whole` is the line of its method.
    """

    label: str = ""
    requested: tuple[Result, ...] = ()
    states: Mapping[str, State] = field(default_factory=dict)
    split: str = ""
    control: str = ""
    whole: RecipeLine | None = None

    @property
    def name(self) -> str:
        """The method's title, or its label until a run is done; for a control its name."""
        if self.whole:
            return control_name(self.control)
        return str(self.entry["title"] or self.label)

    @property
    def begun(self) -> bool:
        """Whether any of its runs was begun."""
        return any(self.states[run.run_id].status != "missing" for run in self.requested)

    @property
    def not_done(self) -> list[tuple[str, str | None, list[int]]]:
        """Status, reason and seeds of the runs that are not done."""
        found = dict[tuple[str, str | None], list[int]]()
        for run in self.requested:
            state = self.states[run.run_id]
            if state.status != "done":
                found.setdefault((state.status, state.reason), []).append(run.cell.seed)
        return [(*key, seeds) for key, seeds in found.items()]


@dataclass(frozen=True)
class Tab:
    """The lines of one data set and imbalance factor, ours first, each by accuracy.

    `name` is the data set's title; `factor` is None if it comes with its own tail, which `tail` then
    describes, if known. `sizes` are the numbers of classes in the shot groups of `rule`, None if unknown.
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
        """Its name with the imbalance factor or its own tail."""
        if self.factor is None:
            return ", ".join(filter(None, (self.name, self.tail)))
        return f"{self.name}, imbalance factor {self.factor:g}"

    @property
    def measured_lines(self) -> list[Line]:
        """The lines with a page: measured ones and their controls, each once."""
        every = [one for line in self.lines for one in (line, *line.controls.values())]
        return list({line.key: line for line in every if line.kind == "measured"}.values())

    @property
    def anchor(self) -> str:
        """Its anchor in a page."""
        return f"{self.dataset}-{self.imbalance_factor:g}"

    @cached_property
    def leagues(self) -> dict[League, list[Line]]:
        """Its leagues, sorted by the number of judged, then of measured, then of all lines, most first."""
        found = grouped(self.lines, lambda line: line.league)

        def sort_key(league: League) -> tuple[Any, ...]:
            lines, fields = found[league], ["not stated" if v is None else str(v) for v in league.protocol]
            return -sum(line.judged for line in lines), -_measured(lines), -len(lines), fields

        return {league: found[league] for league in sorted(found, key=sort_key)}

    @property
    def opening(self) -> League:
        """The league shown first."""
        return next(iter(self.leagues))

    @property
    def measured(self) -> int:
        """The number of its measured lines."""
        return _measured(self.lines)


def control_name(name: str) -> str:
    """Write the name of a control for a row or mark below its method."""
    return f"↳ {name.replace('_', ' ')}"


def rows(lines: Iterable[Line]) -> list[Line]:
    """Return the lines with their own row: a published number that judges a measured line is in its row.

    If the number is of another league, because it leaves a field unstated, it has a row there too.
    """
    known = list(lines)
    shown = {(line.league, line.pair["place"]) for line in known if line.pair and line.judged}
    return [
        line
        for line in known
        if line.kind != "published"
        or shown.isdisjoint((line.league, entry["key"]) for entry in line.reports.get("accuracy", ()))
    ]


@dataclass(frozen=True)
class Marks:
    """Bold and ties among lines, by metric; "published" is the published accuracy.

    `bold` has keys of lines; `ties` has by key the indices of the lines whose difference to it may be noise.
    """

    bold: Mapping[str, set[str]]
    ties: Mapping[str, Mapping[str, Sequence[str]]]


def marks(lines: Sequence[Line], *, groups: Sequence[Any] | None = None, ties: bool = False) -> Marks:
    """Mark lines in each of `RANKED`, and in balanced accuracy if that ranks them.

    Bold are, in each group (by default a league), the best measured over three seeds or more, all whose
    difference to it may be noise (see `bench.leaderboard.compare`), and the best published, whose noise is
    unknown.
    """
    members = dict[Any, list[Line]]()
    for line, group in zip(lines, groups or [line.league for line in lines], strict=True):
        members.setdefault(group, []).append(line)
    metrics = tuple(dict.fromkeys((headline_of(line.entry for line in lines), *RANKED)))
    index = {line.key: str(i) for i, line in enumerate(lines)}
    ours = [line for line in lines if line.kind != "published"] if ties else []
    return Marks(
        {m: {key for some in members.values() for key in bold(some, m)} for m in (*metrics, "published")},
        {
            m: {key: [index[o] for o in others] for key, others in _tied(members.values(), ours, m).items()}
            for m in metrics
        },
    )


def _tied(groups: Iterable[Sequence[Line]], ours: Sequence[Line], metric: str) -> dict[str, list[str]]:
    noises = dict[str, Noise]()
    for lines in groups:
        values = {line.key: line.by_seed(metric) for line in lines if line.kind != "published"}
        noises |= dict.fromkeys(values, noise(values))
    return tied({line.key: line.by_seed(metric) for line in ours}, noises)


def bold(lines: Sequence[Line], metric: str) -> set[str]:
    """Return the keys of the bold cells in a column of lines that are ranked together."""
    if metric == "published":
        return _highest({line.key: line.reported for line in lines if not line.doubtful})
    ours = best({line.key: line.by_seed(metric) for line in lines if line.kind != "published"})
    if metric == "accuracy":
        return ours
    known = (line for line in lines if line.kind == "published" and not line.doubtful)
    return ours | _highest({line.key: line.entry[metric] for line in known})


def _highest(values: Mapping[str, float | None]) -> set[str]:
    top = max((value for value in values.values() if value is not None), default=None)
    return {key for key, value in values.items() if value is not None and value == top}


def _measured(lines: Sequence[Line]) -> int:
    return sum(line.kind == "measured" for line in lines)
