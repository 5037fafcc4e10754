"""The page of a measured series: all there is to know of its runs, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.longtail import shot_groups
from bench.files import write_text
from bench.leaderboard import side_by_side
from bench.published import plain
from bench.records import Result
from bench.report import board_cells as cells
from bench.report import run_figures, text
from bench.report.board import Board
from bench.report.lines import Line, Tab
from bench.report.page import Column, Table, Value, render
from bench.report.run_analysis import analysis
from bench.report.summary import settings, written
from bench.report.widening import FIELDS, protocol, words

_SHARES = ("accuracy", "many", "medium", "few", "balanced", "worst_class", "harmonic", "ece")


def render_runs(board: Board, reports: Path) -> list[Path]:
    """Write a page for each measured series into ``reports/runs``; pages of series that are gone go too."""
    numbers = {entry["key"]: entry for entry in plain(board.entries)}
    written = []
    for tab in board.tabs:
        for line in tab.lines:
            if line.page:
                written.append(reports / "runs" / line.page)
                write_text(
                    written[-1], render("run.html.jinja", scripts=(), **_page(board, tab, line, numbers))
                )
    for stale in set(reports.glob("runs/*.html")) - set(written):
        stale.unlink(missing_ok=True)  # another `report` may be at it
    return written


def _page(board: Board, tab: Tab, line: Line, numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    runs = [board.results[run] for run in line.runs]
    first = runs[0]
    parts, lacking = analysis(runs)
    return {
        "title": f"{line.entry['title']} on {tab.title}",
        "name": line.entry["title"],
        "tab": tab,
        "line": line,
        "protocol": protocol(line.league),
        "method": first.record["method"],
        "verdict": cells.gap(line) if line.pair and line.pair["d"] is not None else None,
        "seeds": _seeds(tab, runs),
        "beside": _beside(line, numbers),
        "others": _others(line),
        "figures": _figures(tab, runs),
        "analysis": parts,
        "lacking": lacking,
        "settings": _settings(first),
        "environment": _environment([run.record for run in runs]),
        "runs": line.runs,
    }


def _seeds(tab: Tab, runs: Sequence[Result]) -> Table:
    """List each seed, and their mean where there are several."""
    heads = {name: tab.shots.get(name, name.replace("_", " ").replace("ece", "ECE")) for name in _SHARES}
    columns = [Column("seed"), *(Column(heads[name]) for name in _SHARES)]
    columns += [Column("best on test (epoch)"), Column("device time"), Column("finished", numeric=False)]
    rows, records = [], [run.record for run in runs]
    for run in runs:
        record = run.record
        best, timing = record.get("best_on_test") or {}, record.get("timing", {})
        epoch = f" ({best['epoch'] + 1})" if best else ""
        rows.append(
            [
                Value(str(run.cell.seed)),
                *(Value(text.number(record["metrics"].get(name))) for name in _SHARES),
                Value(text.number(best.get("accuracy")) + epoch),
                Value(text.duration(timing.get("device_seconds"))),
                Value(str(timing.get("finished", text.NA))[:16].replace("T", " ")),
            ]
        )
    if len(records) > 1:
        means = [text.spread(_known([record["metrics"] for record in records], name)) for name in _SHARES]
        best = text.spread(_known([record.get("best_on_test") or {} for record in records], "accuracy"))
        rows.append([Value(told) for told in ("mean", *means, best, "", "")])
    return Table(columns, rows)


def _known(blocks: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [block[name] for block in blocks if block.get(name) is not None]


def _beside(line: Line, numbers: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Set the protocol beside that of the published number it is judged by, field by field."""
    pair = line.pair
    if pair is None or pair["d"] is None:
        return None
    columns = [Column(head, numeric=False) for head in ("field", "measured here", pair["reported_by"], "")]
    names = {"width_class": "width", "data_copy": "data copy", "pretraining": "pre-training"}
    rows = [
        [
            Value(names.get(field, FIELDS.get(field, (field.replace("_", " "),))[0])),
            Value(ours),
            Value(theirs),
            Value(state, kind={"differs": "protocol-differs", "same": "reproduced"}.get(state, "")),
        ]
        for field, ours, theirs, state in side_by_side(line.entry, numbers[pair["place"]], pair["ours"])
    ]
    told = "; ".join(filter(None, (pair["source"], f"read from {pair['trust']}", pair["note"])))
    return Table(columns, rows, told)


def _others(line: Line) -> Table | None:
    """List all other published numbers of the method on this data."""
    columns = [Column("published"), Column("gap"), Column("verdict", numeric=False)]
    columns += [Column(head, numeric=False) for head in ("differs in", "by", "source")]
    rows = [
        [
            Value(text.printed(pair["published"])),
            Value(text.gap(pair["d"])),
            Value(str(pair["verdict"]), kind=cells.style(pair["verdict"])),
            Value(words(pair["differs"]) or "nothing stated"),
            Value(pair["reported_by"]),
            Value(pair["source"]),
        ]
        for pair in line.pairs[1:]
    ]
    return Table(columns, rows) if rows else None


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
    rows = [[Value("method"), Value(f"{method.name}, version {method.version}")]]
    for name, value in method.params.items():
        changed = ("set by the recipe",) if name in method.changed else ()
        rows.append([Value(name), Value(written(value), tags=changed)])
    rows += [[Value(name), Value(written(value))] for name, value in settings(cell).items()]
    counts, tests = record["data"]["class_counts"], record["data"]["test_counts"]
    told = f"{sum(counts):,} training images of {len(counts)} classes, {max(counts):,} to {min(counts):,}"
    rows += [
        [Value("data"), Value(f"{told}; {sum(tests):,} test images")],
        [Value("parameters"), Value(text.number(record["model"]["parameters"], 0))],
    ]
    return Table([Column("setting", numeric=False), Column("value", numeric=False)], rows)


def _environment(records: Sequence[Mapping[str, Any]]) -> Table:
    """List what the runs ran in, and on which split; what differs among seeds is told of all."""
    said: dict[str, dict[str, None]] = {}
    for record in records:
        prints = {f"split fingerprint, {k}": v for k, v in record["data"]["fingerprint"].items()}
        timing = {"images per second": text.number(record["timing"].get("images_per_second"), 0)}
        timing["peak memory"] = text.number(record["timing"].get("peak_memory_mb"), 0) + " MB"
        for name, value in {**record["environment"], **timing, **prints}.items():
            said.setdefault(name, {})[str(value)] = None
    rows = [[Value(name), Value(", ".join(values))] for name, values in said.items()]
    return Table([Column("what", numeric=False), Column("value", numeric=False)], rows)
