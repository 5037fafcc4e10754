"""What a leaderboard is made of: measured series, published numbers and external predictions as one table.

An *entry* is one line of the board. A measured entry is a series: runs that differ in nothing but their
seed, on the same pixels. A published entry is one line of one source, with its shot groups. An external entry
is a user's own predictions. All accuracies are percent; what is not known is NA.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.leaderboard.protocols import epochs_class, factors, protocols
from bench.published import plain

#: Percentages of an entry; measured ones are means over seeds, and beside each stands ``<name>_std``.
SCORES = ("accuracy", "many", "medium", "few", "best_accuracy", "balanced", "worst_class", "harmonic", "ece")

#: Columns of the table and their types.
COLUMNS: dict[str, str] = {
    "kind": "string",  # measured, published or external
    "key": "string",  # unique: the series, the place of the published row, the external entry's name
    "method": "string",
    "literature": "string",  # the method's name in the published table, if what was run is there
    "title": "string",
    "params": "string",
    "dataset": "string",
    "imbalance_factor": "Float64",
    "backbone": "string",
    "width_class": "string",
    "epochs": "Int64",
    "epochs_class": "string",
    "augmentation": "string",
    "experts": "Int64",
    "pretraining": "string",
    "extra_data": "string",
    "data_copy": "string",
    "selection": "string",
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
}


def entries(
    runs: pd.DataFrame, published: pd.DataFrame, external: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return all entries as one table with the columns `COLUMNS`, measured first.

    Args:
        runs: as of `bench.load_results`; runs that are not done make no entry.
        published: as of `bench.published.load`.
        external: as of `bench.leaderboard.external.load`.
    """
    found = [*_measured(protocols(runs, published)), *_published(published)]
    table = pd.DataFrame(found, columns=list(COLUMNS)).astype(COLUMNS)
    if external is None:
        return table
    external = external.assign(imbalance_factor=factors(external, published))
    return pd.concat([table, external], ignore_index=True)


def _measured(done: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for key, runs in done.groupby("key", sort=True):
        first = runs.sort_values("run_id").iloc[0]
        row = {name: first[name] for name in COLUMNS if name in runs.columns}
        row |= {"kind": "measured", "key": key, "n": len(runs), "selection": "last"}
        for name in SCORES:
            values = runs[name].dropna()
            row[name] = values.mean() if len(values) else pd.NA
            row[f"{name}_std"] = values.std(ddof=1) if len(values) > 1 else pd.NA
        row["device_seconds"] = runs["device_seconds"].mean()
        found.append(row)
    return found


def _published(published: pd.DataFrame) -> list[dict[str, Any]]:
    """Join the numbers that a source gives for one line of a table; a second one of a group starts anew."""
    apart = ("shots", "value", "std", "n_seeds", "seeds_note", "note", "place")
    shared = [name for name in published.columns if name not in apart]
    lines = dict[tuple[Any, ...], list[dict[str, Any]]]()
    for number in plain(published):
        group = lines.setdefault(tuple(number[name] for name in shared), [])
        score = "accuracy" if number["shots"] == "all" else number["shots"]
        row = next((row for row in group if score not in row), None)
        if row is None:
            row = {name: number[name] for name in shared if name in COLUMNS}
            row |= {"kind": "published", "key": number["place"], "title": number["label"]}
            row |= {"literature": number["method"], "epochs_class": epochs_class(number["epochs"])}
            group.append(row)
        row |= {score: number["value"], f"{score}_std": number["std"]}
        row["n"] = row.get("n") or number["n_seeds"]
        row["note"] = "; ".join(dict.fromkeys(note for note in (row.get("note"), number["note"]) if note))
    return [row | {"note": row["note"] or None} for group in lines.values() for row in group]
