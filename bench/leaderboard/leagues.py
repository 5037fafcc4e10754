"""Leagues: entries are ranked only against entries that were made under the same conditions.

A field that is not known is a value of its own: two entries that do not state their epochs are not known to
share them with any that do. A reader who wants to look further widens a league by dropping fields, and is
told what then differs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from bench.errors import BenchError, did_you_mean

#: The value of a field that was left out of account.
ANY = "any"

#: A league of fewer methods enters no average: first of two says little.
FEWEST = 5


@dataclass(frozen=True)
class League:
    """What entries share that are ranked together; None is "not stated", `ANY` a field left out."""

    dataset: str
    imbalance_factor: float | str
    backbone: str | None
    width_class: str | None
    epochs_class: str | None
    augmentation: str | None
    experts: int | str | None
    pretraining: str | None
    extra_data: str | None
    data_copy: str | None

    def __str__(self) -> str:
        """Name it by its fields: "cifar100, imbalance factor 100, resnet32_cifar, ..."."""
        labels = [f"{name.replace('_', ' ')} {_say(getattr(self, name))}" for name in FIELDS[1:]]
        return ", ".join([_say(self.dataset), *labels])


#: The fields of a league, in order.
FIELDS = tuple(field.name for field in fields(League))


def ranked(entries: pd.DataFrame, widen: Collection[str] = (), by: str = "accuracy") -> pd.DataFrame:
    """Return the entries with their `league`, their `rank` in it and `of`, how many are ranked there.

    Equal values share the better rank; an entry without the value has none and counts nowhere.

    Args:
        entries: as of `bench.leaderboard.entries`.
        widen: league fields to leave out of account.
        by: the score that decides, higher is better.
    """
    if unknown := sorted(set(widen) - set(FIELDS)):
        raise BenchError(f"{unknown[0]}: no field of a league{did_you_mean(unknown[0], FIELDS)}")
    leagues = [_league(row, widen) for row in entries[list(FIELDS)].astype(object).to_dict("records")]
    table = entries.assign(league=pd.Series(leagues, index=entries.index, dtype=object))
    scores = table[by].groupby(table["league"], sort=False)
    rank = scores.rank(method="min", ascending=False).astype("Int64")
    return table.assign(rank=rank, of=scores.transform("count").astype("Int64"))


def leagues(entries: pd.DataFrame, widen: Collection[str] = ()) -> pd.DataFrame:
    """Return one row per league: how many entries, measured ones and methods; the fullest first.

    Leagues with measured entries come before all others, so the first is the one to open a page on.
    """
    table = ranked(entries, widen)
    found = []
    for league, rows in table.groupby("league", sort=False):
        measured = int((rows["kind"] == "measured").sum())
        found.append((league, len(rows), measured, rows["method"].nunique()))
    found.sort(key=lambda row: (-row[2], -row[1], str(row[0])))
    return pd.DataFrame(found, columns=["league", "entries", "measured", "methods"])


def differences(entries: pd.DataFrame) -> dict[str, list[Any]]:
    """Return what differs among entries that are shown together: values by field, None "not stated"."""
    found = dict[str, list[Any]]()
    for name in FIELDS:
        values = entries[name].dropna().unique().tolist()
        unknown = [None] if entries[name].isna().any() else []
        if len(values) + len(unknown) > 1:
            found[name] = sorted(values) + unknown
    return found


def average_rank(
    entries: pd.DataFrame, widen: Collection[str] = (), by: str = "accuracy", fewest: int = FEWEST
) -> pd.DataFrame:
    """Return each method's mean rank within leagues, and how many `cells` (leagues) it rests on.

    A method enters a league once, with the median of its entries there, so that it neither gains nor loses
    by being reported often; ties share the mean of their ranks. A league of less than `fewest` methods
    counts for nothing. The table is ordered by mean rank; two methods are comparable only as far as they met
    in the same cells.
    """
    table = ranked(entries, widen, by).dropna(subset=[by])
    medians = table.groupby(["league", "method"], sort=False)[by].median().astype("float64")
    within = medians.groupby("league", sort=False)
    ranks = within.rank(ascending=False)[within.transform("size") >= fewest]
    found = ranks.groupby("method").agg(["mean", "size"]).reset_index()
    found.columns = pd.Index(["method", "average_rank", "cells"])
    return found.sort_values(["average_rank", "method"], ignore_index=True)


def _league(row: dict[Any, Any], widen: Collection[str]) -> League:
    stated: dict[str, Any] = {name: None if pd.isna(row[name]) else row[name] for name in FIELDS}
    return League(**(stated | dict.fromkeys(widen, ANY)))


def _say(value: Any) -> str:
    return "not stated" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
