"""Analyses of a series' stored logits as tables: shot rules, calibration, logit adjustment, skewed tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from bench.errors import BenchError
from bench.leaderboard import reanalysis
from bench.leaderboard.reanalysis import SHOT_RULES, Stored
from bench.report.table import Column, Table, Value
from bench.report.text import number, sort_key
from bench.result import Result

#: Head, explanation, and the table or the reason why there is none.
Analysis = tuple[str, str, Table | str]

_CALIBRATION = (
    "Calibration",
    "A long tail raises confidence above accuracy for rare classes. Percent; NLL in nats, Brier from 0 to 2. "
    "By the shot group of the image, class-wise ECE by that of the class.",
)


def analysis(runs: Sequence[Result]) -> tuple[list[Analysis], str]:
    """Return analyses averaged over the runs whose logits are here, and a message about the others.

    Without logits there is only the calibration that records keep.
    """
    found, missing = list[Stored](), list[str]()
    for run in runs:
        try:
            found.append(reanalysis.stored(run))
        except BenchError as error:
            missing.append(str(error).replace(f"{run.directory.path.parents[1]}/", ""))
    if not found:
        kept = [table for run in runs if (table := reanalysis.recorded_calibration(run)) is not None]
        return [(*_CALIBRATION, _averaged(kept))] if kept else [], missing[0]
    parts: list[Analysis] = [
        (
            "Other shot rules",
            "Papers group classes in several ways, and seldom state which.",
            _shots(found),
        ),
        (*_CALIBRATION, _averaged([reanalysis.calibration(run) for run in found])),
        (
            "Post-hoc logit adjustment",
            "Logits minus tau times the log of the training prior. The best tau of this sweep is chosen on "
            "the test set: an upper bound, not a result.",
            _or_reason(reanalysis.adjusted, found, ["tau", "accuracy", "many", "medium", "few", "ece"]),
        ),
        (
            "Skewed test sets",
            "Accuracy on long-tailed test sets: forward as in training, backward reversed.",
            _averaged([reanalysis.skewed(run) for run in found]),
        ),
    ]
    return parts, f"{len(missing)} of {len(runs)} seeds are missing: {missing[0]}" if missing else ""


def _shots(found: Sequence[Stored]) -> Table:
    columns = [Column("rule", numeric=False), Column("used by", numeric=False)]
    columns += [Column(name) for name in ("many", "medium", "few")]
    rows = []
    for name, rule in SHOT_RULES.items():
        try:
            tables = [reanalysis.shots(run, name) for run in found]
        except BenchError:
            continue  # made for another number of classes
        mean = _mean(tables, "accuracy")
        groups = [
            Value(f"{number(value)} ({count})", sort_key(value))
            for value, count in zip(mean, tables[0]["classes"], strict=True)
        ]
        rows.append([Value(rule.title), Value(rule.used_by), *groups])
    return Table(columns, rows, "percent, and how many classes")


def _or_reason(
    analyse: Callable[[Stored], pd.DataFrame], found: Sequence[Stored], columns: list[str]
) -> Table | str:
    try:
        return _averaged([analyse(run)[columns] for run in found])
    except BenchError as error:
        return str(error)


def _averaged(tables: Sequence[pd.DataFrame]) -> Table:
    """Return the mean over seeds of tables of one shape."""
    columns, cells = list[Column](), list[list[Value]]()
    for name, values in tables[0].items():
        texts = values.dtype == "string"
        columns.append(Column(str(name).replace("_", " "), numeric=not texts))
        if texts:
            cells.append([Value(str(value)) for value in values])
        else:
            digits = 0 if values.dtype == "Int64" else 2
            cells.append([Value.number(value, digits=digits) for value in _mean(tables, str(name))])
    return Table(columns, list(zip(*cells, strict=True)))


def _mean(tables: Sequence[pd.DataFrame], column: str) -> list[float | None]:
    mean = pd.concat([table[column] for table in tables], axis=1).mean(axis=1)
    return [None if pd.isna(value) else float(value) for value in mean]
