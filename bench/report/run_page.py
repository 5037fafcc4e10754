"""The page of a measured series: all there is to know of its runs, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.split.longtail import shot_groups
from bench.files import write_text
from bench.leaderboard import Board, side_by_side
from bench.leaderboard.board import settings, written
from bench.leaderboard.entries import Entry
from bench.leaderboard.lines import Line, Tab
from bench.leaderboard.protocols import FIELDS
from bench.records import Result
from bench.report import run_figures, text, values
from bench.report.columns import PAIRS, beside_table, seed_table
from bench.report.page import Table, Value, render
from bench.report.run_analysis import analysis
from bench.report.widening import protocol


def render_runs(board: Board, reports: Path) -> list[Path]:
    """Write a page for each measured series into ``reports/runs``; pages of series that are gone go too."""
    numbers = {entry["key"]: entry for entry in board.entries}
    written = []
    for tab in board.tabs:
        for line in tab.measured_lines:
            written.append(reports / "runs" / str(line.page))
            page = render("run.html.jinja", scripts=(), **_page(tab, line, numbers))
            write_text(written[-1], page)
    for stale in set(reports.glob("runs/*.html")) - set(written):
        stale.unlink(missing_ok=True)  # another `report` may be at it
    return written


def _page(tab: Tab, line: Line, numbers: Mapping[str, Entry]) -> dict[str, Any]:
    first = line.runs[0]
    parts, lacking = analysis(line.runs)
    beside = None
    if line.pair:
        fields = side_by_side(line.entry, numbers[line.pair["place"]], line.pair["ours"])
        beside = beside_table(line.pair, fields, {name: field.label for name, field in FIELDS.items()})
    return {
        "title": f"{line.entry['title']} on {tab.title}",
        "name": line.entry["title"],
        "tab": tab,
        "line": line,
        "protocol": protocol(line.league),
        "method": first.record["method"],
        "verdict": values.gap(line) if line.pair else None,
        "seeds": seed_table([run.row for run in line.runs], text.group_heads(tab.sizes, tab.rule)),
        "beside": beside,
        "others": Table.of(PAIRS, line.pairs[1:]) if len(line.pairs) > 1 else None,
        "figures": _figures(tab, line.runs),
        "analysis": parts,
        "lacking": lacking,
        "settings": _settings(first),
        "environment": _environment([run.record for run in line.runs]),
        "runs": [run.run_id for run in line.runs],
    }


def _figures(tab: Tab, runs: Sequence[Result]) -> list[tuple[str, str]]:
    """Return figures with their captions, as far as there is something to draw."""
    data, named = runs[0].record["data"], f"on {tab.title}"
    counts, rule = np.array(data["class_counts"]), runs[0].cell.dataset.shots
    found = []
    curves = run_figures.curves(
        {run.cell.seed: run.curve for run in runs},
        f"Loss and accuracy by epoch {named}",
    )
    if curves:
        found.append((curves, "Every seed by itself. The last epoch is what is reported."))
    shares = [run.record["metrics"]["per_class"] for run in runs]
    classes = run_figures.classes(
        data["class_counts"], shares, shot_groups(counts, rule), f"Class accuracies {named}"
    )
    found.append((classes, "A dot per class; the whisker is one standard deviation over seeds."))
    matrices = [matrix for run in runs if (matrix := run.confusion) is not None]
    if len(matrices) == len(runs):
        matrix = np.sum(matrices, axis=0)
        drawn = run_figures.confusion(matrix, data["class_names"], f"Confusion {named}")
        found.append(
            (drawn, "Of each true class, the percentage of images given to each class, all seeds together.")
        )
    return found


def _settings(run: Result) -> Table:
    cell, record = run.cell, run.record
    method = cell.method
    rows: list[tuple[str, str | Value]] = [("method", f"{method.name}, version {method.version}")]
    for name, value in method.params.items():
        changed = ("set by the recipe",) if name in method.changed else ()
        rows.append((name, Value(written(value), tags=changed)))
    rows += [(name, written(value)) for name, value in settings(cell).items()]
    counts, tests = record["data"]["class_counts"], record["data"]["test_counts"]
    told = f"{sum(counts):,} training images of {len(counts)} classes, {max(counts):,} to {min(counts):,}"
    rows.append(("data", f"{told}; {sum(tests):,} test images"))
    rows.append(("parameters", text.number(record["model"]["parameters"], 0)))
    return Table.listing(("setting", "value"), rows)


def _environment(records: Sequence[Mapping[str, Any]]) -> Table:
    """List what the runs ran in, and on which split; what differs among seeds is told of all."""
    said: dict[str, dict[str, None]] = {}
    for record in records:
        prints = {f"split fingerprint, {k}": v for k, v in record["data"]["fingerprint"].items()}
        timing = {"images per second": text.number(record["timing"].get("images_per_second"), 0)}
        timing["peak memory"] = text.number(record["timing"].get("peak_memory_mb"), 0) + " MB"
        environment = dict(record["environment"])
        if (told := environment.pop("bfloat16", None)) is not None:
            environment["precision"] = "bfloat16" if told else "float32"
        for name, value in {**environment, **timing, **prints}.items():
            said.setdefault(name, {})[str(value)] = None
    return Table.listing(("what", "value"), [(name, ", ".join(values)) for name, values in said.items()])
