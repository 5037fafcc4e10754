"""The table that parts the variance of repetitions into subset, initialisation and the rest."""

from __future__ import annotations

from collections.abc import Iterable

from bench.leaderboard.lines import Asked
from bench.leaderboard.variance import Components, components
from bench.records import series
from bench.report.page import Column, Table, Value
from bench.report.text import number, order

#: A line of one of the splits, and what all of them tell.
Row = tuple[Asked, Components]


def _deviation(head: str, hint: str, name: str) -> Column:
    def get(row: Row) -> Value:
        value = getattr(row[1], name)
        return Value(number(value), order(value))

    return Column(head, hint, get=get)


def _method(row: Row) -> Value:
    line, _ = row
    notes = [("code", line.label)] if line.label != line.name else []
    return Value(line.name, notes=tuple(notes))


_COLUMNS = (
    Column("method", numeric=False, get=_method),
    Column(
        "runs",
        "how many splits, and how many seeds on each of them",
        get=lambda row: Value(f"{row[1].splits} x {row[1].seeds}", row[1].splits * row[1].seeds),
    ),
    _deviation("mean", "over all these runs", "mean"),
    _deviation("subset", "standard deviation over the subsets that were drawn (split seeds)", "subset"),
    _deviation(
        "initialisation",
        "standard deviation over the seeds of initial weights and order of images, alike on all splits",
        "initialisation",
    ),
    _deviation(
        "rest", "standard deviation of what a subset and a seed make together beyond what each makes", "rest"
    ),
    Column(
        "share of the subset",
        "of the variance of one run on a new subset with a new seed",
        get=lambda row: Value(f"{100 * row[1].share_of_subset:.0f} %", round(row[1].share_of_subset, 6)),
    ),
)


def variance_table(lines: Iterable[Asked]) -> Table | None:
    """Part the variance of each method that has the same seeds on several splits, None without one."""
    found = dict[tuple[str, str], tuple[Asked, dict[tuple[int, int], float]]]()
    for line in lines:
        for run in line.runs:
            key = line.label, series(run.cell, across_splits=True)
            scores = found.setdefault(key, (line, {}))[1]
            if (value := run.row[run.headline]) is not None:
                scores[run.cell.dataset.split_seed, run.cell.seed] = value
    rows = [(line, told) for line, scores in found.values() if (told := components(scores)) is not None]
    caption = "standard deviations in points of accuracy: two-way analysis of variance, random effects"
    return Table.of(_COLUMNS, rows, caption) if rows else None
