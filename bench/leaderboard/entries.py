"""The entries of a leaderboard: measured series, published numbers and external predictions.

A measured entry is a series: runs that differ only in their seed, on the same pixels. A published entry is
one row of one source, with its shot groups. An external entry is a user's own predictions. Accuracies are
percent; unknown values are None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bench.leaderboard.grouping import grouped
from bench.leaderboard.protocols import FIELDS, Measured, Number, epochs_class, natural_factors
from bench.leaderboard.stated import filled
from bench.metrics import METRICS
from bench.result import Result

Entry = dict[str, Any]

#: Metrics of an entry; a measured one has the mean over seeds, and ``<name>_std``.
SCORES = (*METRICS, "best_accuracy")

#: What a measured entry takes from its first run.
_ABOUT = ("method", "title", "params", "parameters", "inference_parameters", "reconstruction")

#: The columns of an entry and their types.
COLUMNS: dict[str, str] = {
    "kind": "string",  # measured, published or external
    "key": "string",  # unique: the series, the location of the published row, the external entry's name
    "method": "string",
    "literature": "string",  # the method's name in the published table, if it is there
    "title": "string",
    "params": "string",
    "control": "string",  # a control's name; it is not ranked, see `bench.leaderboard.control_series`
    "dataset": "string",
    "imbalance_factor": "Float64",
    **{name: field.kind for name, field in FIELDS.items()},
    "selection": "string",
    "headline": "string",  # the metric that ranks a measured entry
    "by_card": "string",  # the fields that a published row leaves to its authors' card
    "n": "Int64",  # number of seeds
    **{name: "Float64" for score in SCORES for name in (score, f"{score}_std")},
    "parameters": "Int64",
    "inference_parameters": "Int64",
    "device_seconds": "Float64",
    "reconstruction": "boolean",
    "reported_by": "string",
    "original": "boolean",
    "source": "string",
    "year": "Int64",
    "trust": "string",
    "note": "string",
    "doubtful": "boolean",  # whether the number itself is doubtful, whatever its source
}

_EMPTY: Entry = dict.fromkeys(COLUMNS)


def entries(
    measured: Iterable[Measured], numbers: Sequence[Number], external: Iterable[Entry] = ()
) -> list[Entry]:
    """Return all entries, measured first, each with all `COLUMNS`.

    Args:
        measured: see `bench.leaderboard.protocols.protocols`.
        numbers: the literature.
        external: see `bench.leaderboard.external.load`.
    """
    series = grouped(measured, lambda one: one.key)
    natural = natural_factors(numbers)
    ours = [_measured(key, series[key]) for key in sorted(series)]
    return [*ours, *_published(numbers), *(_natural(entry, natural) for entry in external)]


def _natural(entry: Entry, natural: Mapping[str, float]) -> Entry:
    """Give an entry on a data set with a natural tail the imbalance factor of the literature."""
    dataset, factor = entry["dataset"], entry["imbalance_factor"]
    return entry | {"imbalance_factor": natural.get(dataset, factor) if factor == 1 else factor}


def entry(**known: Any) -> Entry:
    """Return an entry with these values, None elsewhere."""
    return _EMPTY | known


def over_seeds(runs: Iterable[Result]) -> dict[str, float | None]:
    """Return mean and standard deviation of each of `SCORES` over runs."""
    rows, found = [run.row for run in runs], dict[str, float | None]()
    for name in SCORES:
        values = [row[name] for row in rows if row[name] is not None]
        found |= {name: mean(values), f"{name}_std": deviation(values)}
    return found


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None without values."""
    return fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, None of fewer than two values."""
    if len(values) < 2:
        return None
    center = fmean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))


def _measured(key: str, members: Sequence[Measured]) -> Entry:
    first = min(members, key=lambda one: one.run.run_id)
    about = {name: first.run.row[name] for name in _ABOUT}
    return entry(
        kind="measured",
        key=key,
        literature=first.literature,
        dataset=first.dataset,
        imbalance_factor=first.imbalance_factor,
        selection="last",
        headline=first.run.headline,
        n=len(members),
        note=first.footnote,
        device_seconds=mean([one.seconds for one in members if one.seconds is not None]),
        **about,
        **first.protocol,
        **over_seeds(one.run for one in members),
    )


def _published(numbers: Iterable[Number]) -> list[Entry]:
    """Join the numbers of one row of a source; a second one of the same shot group starts another."""
    own = ("shots", "value", "std", "n_seeds", "seeds_note", "note", "place", "doubtful")
    found = dict[tuple[Any, ...], list[Entry]]()
    for number in numbers:
        shared = {name: value for name, value in number.items() if name not in own}
        same = found.setdefault(tuple(shared.values()), [])
        metric = "accuracy" if number["shots"] == "all" else number["shots"]
        row = next((row for row in same if row[metric] is None), None)
        if row is None:
            row = _EMPTY | {name: value for name, value in shared.items() if name in COLUMNS}
            row |= {"kind": "published", "key": number["place"], "title": number["label"]}
            by_card = filled(number)
            row |= by_card | {"by_card": " ".join(by_card) or None, "literature": number["method"]}
            row["epochs_class"] = epochs_class(row["epochs"])
            same.append(row)
        row |= {metric: number["value"], f"{metric}_std": number["std"]}
        row["n"] = row["n"] or number["n_seeds"]
        row["doubtful"] = row["doubtful"] or number["doubtful"]
        notes = filter(None, (row["note"], number["note"]))
        row["note"] = "; ".join(dict.fromkeys(notes)) or None
    return [row for same in found.values() for row in same]
