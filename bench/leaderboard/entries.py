"""What a leaderboard is made of: measured series, published numbers and external predictions as one list.

An *entry* is one line of the board. A measured entry is a series: runs that differ in nothing but their
seed, on the same pixels. A published entry is one line of one source, with its shot groups. An external entry
is a user's own predictions. All accuracies are percent; what is not known is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from bench.leaderboard.protocols import FIELDS, Measured, Number, epochs_class, natural_factors
from bench.leaderboard.stated import filled
from bench.metrics import METRICS
from bench.records import Result

Entry = dict[str, Any]

#: Percentages of an entry; measured ones are means over seeds, and beside each stands ``<name>_std``.
SCORES = (*METRICS, "best_accuracy")

#: What is taken over from a series' first run.
_ABOUT = ("method", "title", "params", "parameters", "inference_parameters", "reconstruction")

#: What an entry has, and its type in a table.
COLUMNS: dict[str, str] = {
    "kind": "string",  # measured, published or external
    "key": "string",  # unique: the series, the place of the published row, the external entry's name
    "method": "string",
    "literature": "string",  # the method's name in the published table, if what was run is there
    "title": "string",
    "params": "string",
    "control": "string",  # of a control, its name: it ranks nowhere (see `bench.leaderboard.beneath`)
    "dataset": "string",
    "imbalance_factor": "Float64",
    **{name: field.kind for name, field in FIELDS.items()},
    "selection": "string",
    "headline": "string",  # of a measured entry, the metric that ranks it
    "by_card": "string",  # which of these a published row does not state, but its authors' card
    "n": "Int64",  # how many seeds
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
    "doubtful": "boolean",  # whether the number itself is, whatever its source
}

_NOTHING: Entry = dict.fromkeys(COLUMNS)


def entries(
    measured: Iterable[Measured], numbers: Sequence[Number], external: Iterable[Entry] = ()
) -> list[Entry]:
    """Return all entries, measured first, each with all of `COLUMNS`.

    Args:
        measured: as of `bench.leaderboard.protocols`.
        numbers: the literature.
        external: as of `bench.leaderboard.external.load`.
    """
    series = dict[str, list[Measured]]()
    for one in measured:
        series.setdefault(one.key, []).append(one)
    natural = natural_factors(numbers)
    foreign = []
    for entry in external:
        dataset, factor = entry["dataset"], entry["imbalance_factor"]
        foreign.append(entry | {"imbalance_factor": natural.get(dataset, factor) if factor == 1 else factor})
    ours = [_measured(key, series[key]) for key in sorted(series)]
    return [*ours, *_published(numbers), *foreign]


def entry(**known: Any) -> Entry:
    """Return an entry of which so much is known."""
    return _NOTHING | known


def over_seeds(runs: Iterable[Result]) -> dict[str, float | None]:
    """Return mean and standard deviation of each of `SCORES` over runs."""
    rows, found = [run.row for run in runs], {}
    for name in SCORES:
        values = [row[name] for row in rows if row[name] is not None]
        found[name], found[f"{name}_std"] = mean(values), deviation(values)
    return found


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, None of less than two."""
    if len(values) < 2:
        return None
    center = math.fsum(values) / len(values)
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
    """Join the numbers that a source gives for one line of a table; a second one of a group starts anew."""
    apart = ("shots", "value", "std", "n_seeds", "seeds_note", "note", "place", "doubtful")
    lines = dict[tuple[Any, ...], list[Entry]]()
    for number in numbers:
        shared = {name: value for name, value in number.items() if name not in apart}
        group = lines.setdefault(tuple(shared.values()), [])
        score = "accuracy" if number["shots"] == "all" else number["shots"]
        row = next((row for row in group if row[score] is None), None)
        if row is None:
            row = _NOTHING | {name: value for name, value in shared.items() if name in COLUMNS}
            row |= {"kind": "published", "key": number["place"], "title": number["label"]}
            said = filled(number)
            row |= said | {"by_card": " ".join(said) or None, "literature": number["method"]}
            row["epochs_class"] = epochs_class(row["epochs"])
            group.append(row)
        row |= {score: number["value"], f"{score}_std": number["std"]}
        row["n"] = row["n"] or number["n_seeds"]
        row["doubtful"] = row["doubtful"] or number["doubtful"]
        notes = filter(None, (row["note"], number["note"]))
        row["note"] = "; ".join(dict.fromkeys(notes)) or None
    return [row for group in lines.values() for row in group]
