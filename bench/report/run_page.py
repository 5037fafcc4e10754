"""The page of a measured series: everything about its runs, in one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.split.longtail import shot_groups
from bench.files import write_text
from bench.leaderboard import Board, side_by_side
from bench.leaderboard.cell_settings import settings, written
from bench.leaderboard.check import Pair, words
from bench.leaderboard.entries import Entry, deviation, mean
from bench.leaderboard.lines import Line, Tab
from bench.leaderboard.protocols import FIELDS
from bench.metrics import METRICS
from bench.report import run_figures, text, values
from bench.report.filters import protocol
from bench.report.page import render
from bench.report.run_analysis import analysis
from bench.report.table import Column, Table, Value
from bench.result import Result

#: Columns of pairs: the other published numbers of a method.
_PAIRS = (
    Column("published", get=lambda pair: Value(text.printed(pair["published"]))),
    Column("gap", get=lambda pair: Value(text.gap(pair["d"]))),
    Column(
        "verdict",
        numeric=False,
        get=lambda pair: Value(str(pair["verdict"]), kind=values.style(pair["verdict"])),
    ),
    Column("differs in", numeric=False, get=lambda pair: Value(words(pair["differs"]) or "nothing stated")),
    Column("by", numeric=False, get=lambda pair: Value(pair["reported_by"])),
    Column("source", numeric=False, get=lambda pair: Value(pair["source"])),
)


def render_runs(board: Board, reports: Path) -> list[Path]:
    """Write a page for each measured series into ``reports/runs``; remove pages of others."""
    numbers = {entry["key"]: entry for entry in board.entries}
    written = []
    for tab in board.tabs:
        for line in tab.measured_lines:
            written.append(reports / "runs" / str(line.page))
            page = render("run.html.jinja", scripts=(), **_page(tab, line, numbers))
            write_text(written[-1], page)
    for stale in set(reports.glob("runs/*.html")) - set(written):
        stale.unlink(missing_ok=True)  # another `report` may run at the same time
    return written


def _page(tab: Tab, line: Line, numbers: Mapping[str, Entry]) -> dict[str, Any]:
    first = line.runs[0]
    parts, lacking = analysis(line.runs)
    beside = None
    if line.pair:
        fields = side_by_side(line.entry, numbers[line.pair["place"]], line.pair["ours"])
        beside = _beside(line.pair, fields)
    return {
        "title": f"{line.entry['title']} on {tab.title}",
        "name": line.entry["title"],
        "tab": tab,
        "line": line,
        "protocol": protocol(line.league),
        "method": first.record["method"],
        "verdict": values.gap(line) if line.pair else None,
        "seeds": _seeds([run.row for run in line.runs], text.group_heads(tab.sizes, tab.rule)),
        "beside": beside,
        "others": Table.of(_PAIRS, line.pairs[1:]) if len(line.pairs) > 1 else None,
        "figures": _figures(tab, line.runs),
        "analysis": parts,
        "lacking": lacking,
        "settings": _settings(first),
        "environment": _environment([run.record for run in line.runs]),
        "runs": [run.run_id for run in line.runs],
    }


def _seeds(rows: Sequence[Mapping[str, Any]], heads: Mapping[str, str]) -> Table:
    """Return a series' runs, rows of the table of runs, and their mean if there are several."""

    def metric(row: Mapping[str, Any], name: str) -> Value:
        return Value(text.number(row[name]))

    def best(row: Mapping[str, Any]) -> Value:
        epoch = f" ({row['best_epoch'] + 1})" if row["best_epoch"] is not None else ""
        return Value(text.number(row["best_accuracy"]) + epoch)

    def finished(row: Mapping[str, Any]) -> Value:
        return Value((row["finished"] or text.NA)[:16].replace("T", " "))

    columns = [
        Column("seed", get=lambda row: Value(str(row["seed"]))),
        *(Column(heads.get(n, m.head), get=partial(metric, name=n)) for n, m in METRICS.items()),
        Column("best on test (epoch)", get=best),
        Column("device time", get=lambda row: Value(text.duration(row["device_seconds"]))),
        Column("finished", numeric=False, get=finished),
    ]
    table = Table.of(columns, rows)
    if len(rows) < 2:
        return table
    metrics = [[row[name] for row in rows if row[name] is not None] for name in (*METRICS, "best_accuracy")]
    means = [Value(text.around(mean(known), deviation(known))) for known in metrics]
    return replace(table, rows=[*table.rows, [Value("mean"), *means, Value(""), Value("")]])


def _beside(pair: Pair, fields: Iterable[tuple[str, str, str, str]]) -> Table:
    """Return both protocols field by field, see `side_by_side`."""
    kinds = {"differs": "protocol-differs", "same": "reproduced"}
    labels = {name: field.label for name, field in FIELDS.items()}
    columns = [
        Column("field", numeric=False, get=lambda row: Value(labels.get(row[0], row[0]))),
        Column("measured here", numeric=False, get=lambda row: Value(row[1])),
        Column(pair["reported_by"], numeric=False, get=lambda row: Value(row[2])),
        Column("", numeric=False, get=lambda row: Value(row[3], kind=kinds.get(row[3], ""))),
    ]
    return Table.of(columns, fields, values.source(pair))


def _figures(tab: Tab, runs: Sequence[Result]) -> list[tuple[str, str]]:
    """Return the figures with their captions."""
    data, named = runs[0].record["data"], f"on {tab.title}"
    counts, rule = np.array(data["class_counts"]), runs[0].cell.dataset.shots
    found = []
    curves = run_figures.curves([run.curve for run in runs], f"Loss and accuracy by epoch {named}")
    if curves:
        found.append((curves, "A line for each seed. The last epoch is reported."))
    accuracies = [run.record["metrics"]["per_class"] for run in runs]
    classes = run_figures.classes(
        data["class_counts"], accuracies, shot_groups(counts, rule), f"Class accuracies {named}"
    )
    found.append((classes, "A dot per class; the whisker is one standard deviation over seeds."))
    matrices = [matrix for run in runs if (matrix := run.confusion) is not None]
    if len(matrices) == len(runs):
        matrix = np.sum(matrices, axis=0)
        drawn = run_figures.confusion(matrix, data["class_names"], f"Confusion {named}")
        found.append(
            (drawn, "For each true class, the percentage of images predicted as each class, over all seeds.")
        )
    return found


def _settings(run: Result) -> Table:
    cell, record = run.cell, run.record
    method = cell.method
    rows: list[tuple[str, str | Value]] = [("method", f"{method.name}, version {method.version}")]
    for name, value in method.params.items():
        tags = ("set by the recipe",) if name in method.changed else ()
        rows.append((name, Value(written(value), tags=tags)))
    rows += [(name, written(value)) for name, value in settings(cell).items()]
    counts, tests = record["data"]["class_counts"], record["data"]["test_counts"]
    training = f"{sum(counts):,} training images of {len(counts)} classes, {max(counts):,} to {min(counts):,}"
    rows.append(("data", f"{training}; {sum(tests):,} test images"))
    rows.append(("parameters", text.number(record["model"]["parameters"], 0)))
    return Table.listing(("setting", "value"), rows)


def _environment(records: Sequence[Mapping[str, Any]]) -> Table:
    """List environment, timing and split of the runs, with all values that differ between seeds."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        fingerprints = {f"split fingerprint, {k}": v for k, v in record["data"]["fingerprint"].items()}
        timing = {"images per second": text.number(record["timing"].get("images_per_second"), 0)}
        timing["peak memory"] = text.number(record["timing"].get("peak_memory_mb"), 0) + " MB"
        environment = dict(record["environment"])
        if (bfloat16 := environment.pop("bfloat16", None)) is not None:
            environment["precision"] = "bfloat16" if bfloat16 else "float32"
        for name, value in {**environment, **timing, **fingerprints}.items():
            found.setdefault(name, {})[str(value)] = None
    return Table.listing(("what", "value"), [(name, ", ".join(texts)) for name, texts in found.items()])
