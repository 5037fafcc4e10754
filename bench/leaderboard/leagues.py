"""Leagues: entries are ranked only against entries that were made under the same conditions.

A field that is not known is a value of its own: two entries that do not state their epochs are not known to
share them with any that do.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from bench.published import plain

#: A league of fewer methods enters no average: first of two says little.
FEWEST = 5


@dataclass(frozen=True)
class League:
    """What entries share that are ranked together; None is "not stated"."""

    dataset: str
    imbalance_factor: float
    backbone: str | None
    width_class: str | None
    epochs_class: str | None
    augmentation: str | None
    experts: int | None
    pretraining: str | None
    extra_data: str | None
    data_copy: str | None

    def __str__(self) -> str:
        """Name it by its fields: "cifar100, imbalance factor 100, resnet32_cifar, ..."."""
        labels = [f"{name.replace('_', ' ')} {_say(getattr(self, name))}" for name in FIELDS[1:]]
        return ", ".join([_say(self.dataset), *labels])


#: The fields of a league, in order.
FIELDS = tuple(field.name for field in fields(League))


def ranked(entries: pd.DataFrame) -> pd.DataFrame:
    """Return the entries with their `league`, their `rank` in it and `of`, how many are ranked there.

    They are ranked by accuracy: equal values share the better rank; an entry without one has no rank and
    counts nowhere.

    Args:
        entries: as of `bench.leaderboard.entries`.
    """
    leagues = [League(**row) for row in plain(entries[list(FIELDS)])]
    table = entries.assign(league=pd.Series(leagues, index=entries.index, dtype=object))
    scores = table["accuracy"].groupby(table["league"], sort=False)
    rank = scores.rank(method="min", ascending=False).astype("Int64")
    return table.assign(rank=rank, of=scores.transform("count").astype("Int64"))


def average_rank(entries: pd.DataFrame, fewest: int = FEWEST) -> pd.DataFrame:
    """Return each method's mean rank within leagues, and how many `cells` (leagues) it rests on.

    A method enters a league once, with the median of its entries there, so that it neither gains nor loses
    by being reported often; ties share the mean of their ranks. A league of less than `fewest` methods
    counts for nothing. The table is ordered by mean rank; two methods are comparable only as far as they met
    in the same cells.
    """
    table = ranked(entries).dropna(subset=["accuracy"])
    medians = table.groupby(["league", "method"], sort=False)["accuracy"].median().astype("float64")
    within = medians.groupby("league", sort=False)
    ranks = within.rank(ascending=False)[within.transform("size") >= fewest]
    found = ranks.groupby("method").agg(["mean", "size"]).reset_index()
    found.columns = pd.Index(["method", "average_rank", "cells"])
    return found.sort_values(["average_rank", "method"], ignore_index=True)


def _say(value: Any) -> str:
    return "not stated" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
