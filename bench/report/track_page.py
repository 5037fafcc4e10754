"""The page of the test-agnostic track."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.files import write_text
from bench.leaderboard import Board
from bench.leaderboard.track import MEAN, SETS, Row, bold, rows
from bench.report import text
from bench.report.page import Column, Table, Value, render
from bench.report.widening import protocol

TITLE = "The test-agnostic track"

ABOUT = (
    "Accuracy on test sets with a tail of their own, after SADE (NeurIPS 2022): class shares fall by a ratio "
    "of 2 to 50, exponentially, forward in the order of the training counts or backward against it.",
    "Rows that do not adapt are told nothing of the shares: their class accuracies, weighted by the shares, "
    "are the exact expectation of what papers estimate from one drawn test set. The mean is the plain mean "
    "of the eleven columns. Bold: as on the leaderboard, in each column.",
    "Rows marked as adapted have seen the unlabelled images of each test set. They come last, and are never "
    "ranked with the others.",
)


def render_track(board: Board, reports: Path) -> list[Path]:
    """Write the track as HTML and Markdown, a table for each league with measured rows; return the paths."""
    tabs = []
    for tab in board.tabs:
        for league, lines in tab.leagues.items():
            if members := rows(line for line in lines if line.kind == "measured"):
                tabs.append((tab.title, protocol(league), _table(members)))
    content: dict[str, Any] = {"title": TITLE, "about": ABOUT, "tabs": tabs}
    files = {
        "test_agnostic.html": render("track.html.jinja", **content),
        "test_agnostic.md": render("track.md.jinja", **content),
    }
    for name, written in files.items():
        write_text(reports / name, written)
    return [reports / name for name in files]


def _table(members: Sequence[Row]) -> Table:
    strong = bold(members)
    columns = [
        Column("method", numeric=False, get=_method),
        Column("n", "how many seeds", get=lambda row: Value(str(len(row.by_seed)), len(row.by_seed))),
    ]
    for name in SETS:
        get = partial(_accuracy, name=name, strong=strong[name])
        columns.append(Column(name, headline=name == MEAN, get=get))
    return Table.of(columns, members)


def _method(row: Row) -> Value:
    line = row.line
    notes = [("plain", line.variant)] if line.variant else []
    tags = ("adapted: saw unlabelled test images",) if row.adapted else ()
    return Value(str(line.entry["title"]), href=f"runs/{line.page}", tags=tags, notes=tuple(notes))


def _accuracy(row: Row, name: str, strong: set[str]) -> Value:
    mean, spread = row.means[name]
    kind = "single" if len(row.by_seed) == 1 else ""
    return Value(text.around(mean, spread, 1), text.order(mean), strong=row.key in strong, kind=kind)
