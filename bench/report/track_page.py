"""The page of the test-agnostic track."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.leaderboard import Board
from bench.leaderboard.track import MEAN, SETS, TrackRow, bold, rows
from bench.report.filters import protocol
from bench.report.page import render, write
from bench.report.table import Column, Table, Value

TITLE = "The test-agnostic track"

ABOUT = (
    "Accuracy on long-tailed test sets, after SADE (NeurIPS 2022): class shares fall exponentially by a "
    "ratio of 2 to 50, forward in the order of the training counts, or backward.",
    "Rows that do not adapt do not know the shares: their class accuracies, weighted by the shares, are the "
    "exact expectation of what papers estimate from one sampled test set. The mean is the plain mean of the "
    "eleven columns. Bold: as on the leaderboard, in each column.",
    "Rows marked as adapted have seen the unlabelled images of each test set. They come last, and are never "
    "ranked with the others.",
)


def render_track(board: Board, reports: Path) -> list[Path]:
    """Write the track as HTML and Markdown, a table for each league with measured rows; return the paths."""
    tabs = []
    for tab in board.tabs:
        for league, lines in tab.leagues.items():
            if members := rows(line for line in lines if line.kind == "measured"):
                tabs.append((f"{tab.title}: {protocol(league, lines)}", _table(members)))
    content: dict[str, Any] = {"title": TITLE, "about": ABOUT, "tabs": tabs}
    files = {
        "test_agnostic.html": render("track.html.jinja", **content),
        "test_agnostic.md": render("track.md.jinja", **content),
    }
    return write(reports, files)


def _table(members: Sequence[TrackRow]) -> Table:
    marked = bold(members)
    columns = [
        Column("method", numeric=False, get=_method),
        Column("n", "number of seeds", get=lambda row: Value.number(len(row.by_seed), digits=0)),
        *(Column(n, headline=n == MEAN, get=partial(_accuracy, name=n, bold=marked[n])) for n in SETS),
    ]
    return Table.of(columns, members)


def _method(row: TrackRow) -> Value:
    line, tags = row.line, ("adapted: saw unlabelled test images",) if row.adapted else ()
    name, page = str(line.entry["title"]), f"runs/{line.page}"
    return Value.method(name, variant=line.variant, href=page, tags=tags)


def _accuracy(row: TrackRow, name: str, bold: set[str]) -> Value:
    kind = "single" if len(row.by_seed) == 1 else ""
    return Value.number(*row.means[name], digits=1, bold=row.key in bold, kind=kind)
