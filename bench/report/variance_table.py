"""The table of variance components: training subset, initialisation and the rest."""

from __future__ import annotations

from collections.abc import Iterable

from bench.leaderboard.lines import RecipeLine
from bench.leaderboard.variance import Components, components
from bench.report.table import Column, Table, Value
from bench.result import series


def _component(head: str, hint: str, name: str) -> Column:
    return Column(head, hint, get=lambda row: Value.number(getattr(row[1], name)))


#: Columns of rows of a line of one of the splits and the components over all of them.
_COLUMNS = (
    Column("method", numeric=False, get=lambda row: Value.method(row[0].name, label=row[0].label)),
    Column(
        "runs",
        "number of splits, and of seeds on each",
        get=lambda row: Value(f"{row[1].splits} x {row[1].seeds}", row[1].splits * row[1].seeds),
    ),
    _component("mean", "over all these runs", "mean"),
    _component("subset", "standard deviation over subsets (split seeds)", "subset"),
    _component(
        "initialisation",
        "standard deviation over the seeds of initial weights and sequence of images, the same on all splits",
        "initialisation",
    ),
    _component("rest", "standard deviation of the interaction of subset and seed", "rest"),
    Column(
        "share of the subset",
        "of the variance of one run on a new subset with a new seed",
        get=lambda row: Value(f"{100 * row[1].share_of_subset:.0f} %", round(row[1].share_of_subset, 6)),
    ),
)


def variance_table(lines: Iterable[RecipeLine]) -> Table | None:
    """Return the components of each method with the same seeds on several splits, None without one."""
    found = dict[tuple[str, str], tuple[RecipeLine, dict[tuple[int, int], float]]]()
    for line in lines:
        for run in line.runs:
            key = line.label, series(run.cell, across_splits=True)
            values = found.setdefault(key, (line, {}))[1]
            if (value := run.row[run.headline]) is not None:
                values[run.cell.dataset.split_seed, run.cell.seed] = value
    rows: list[tuple[RecipeLine, Components]] = [
        (line, parts) for line, values in found.values() if (parts := components(values)) is not None
    ]
    caption = "standard deviations in points of accuracy: two-way analysis of variance, random effects"
    return Table.of(_COLUMNS, rows, caption) if rows else None
