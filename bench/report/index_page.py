"""The leaderboard's pages: one file for browsers, one for code hosts, one to paste, and the table itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from bench.files import write_text
from bench.leaderboard import Verdict
from bench.records import Results
from bench.report import board_figures, exports, figures
from bench.report.board import Board
from bench.report.board_cells import style
from bench.report.board_table import HINTS, board_table, rank_table, verdict_table
from bench.report.lines import Line, Tab
from bench.report.page import Table, csv, render
from bench.report.text import counted
from bench.report.widening import FIELDS, choices, leagues, protocol
from bench.rundir import Status

TITLE = "Long-tailed recognition: measured beside published"

CAPTIONS = {
    "shots": f"The league this tab opens on, at most {board_figures.MOST_BARS} rows: the best measured, then "
    "the best published. Mean over seeds, the whisker is one standard deviation.",
    "cost": "What is measured in that league, against what it costs. The line joins what no other beats "
    "in both.",
}


def render_index(board: Board, reports: Path) -> list[Path]:
    """Write the leaderboard as HTML, Markdown, LaTeX, CSV, JSON and BibTeX; return the paths.

    The same results and literature give the same bytes.
    """
    lines = [line for tab in board.tabs for line in tab.lines]
    agreement = board_figures.agreement(lines, "Measured against published accuracy")
    page: dict[str, Any] = {
        "title": TITLE,
        "summary": _summary(board),
        "verdicts": _verdicts(lines),
        "problems": board.problems,
        "recipes": _recipes(board.results),
        "not_done": _not_done(board),
        "judged": verdict_table(board),
        "agreement": agreement,
        "ranks": rank_table(board),
        "hints": HINTS | dict(FIELDS.values()),
        "captions": CAPTIONS,
        "files": ("index.csv", "index.json", "index.tex", "index.bib", "index.md"),
    }
    drawn = {tab.anchor: _figures(tab) for tab in board.tabs}
    sections = [_section(tab, drawn[tab.anchor]) for tab in board.tabs]
    written = {
        "index.html": render(
            "index.html.jinja",
            scripts=("tables.js", "board.js"),
            groups=_groups(board),
            tabs=[_tab(tab, drawn[tab.anchor]) for tab in board.tabs],
            opening=board.opening.anchor if board.tabs else None,
            **page,
        ),
        "index.md": render("index.md.jinja", tabs=sections, **page),
        "index.tex": render("index.tex.jinja", tabs=sections),
        "index.bib": exports.bibtex(board),
        "index.csv": csv(exports.table(board)),
        "index.json": exports.json_lines(board),
    }
    for anchor, svgs in drawn.items():
        written |= {f"figures/{anchor}_{name}.svg": figures.standalone(svg) for name, svg in svgs.items()}
    if agreement:
        written["figures/agreement.svg"] = figures.standalone(agreement)
    for name, content in written.items():
        write_text(reports / name, content)
    return [reports / name for name in written]


def _summary(board: Board) -> str:
    """Say in a sentence what the page rests on."""
    numbers = board.literature
    told = (
        f"{len(numbers):,} published numbers of {counted(numbers['method'].nunique(), 'method')} "
        f"from {counted(numbers['source'].nunique(), 'source')}"
    )
    if not len(board.done):
        return f"{told}. Nothing is measured here yet."
    series = counted(board.done["key"].nunique(), "measured cell")
    return f"{series} ({counted(len(board.done), 'run')}) beside {told}."


def _verdicts(lines: Sequence[Line]) -> list[tuple[str, str, int]]:
    counts = Counter(line.pair["verdict"] for line in lines if line.pair)
    return [(style(verdict), str(verdict), counts[verdict]) for verdict in Verdict if counts[verdict]]


def _recipes(results: Results) -> list[tuple[str, str]]:
    return [(grid.title, f"{name}.html") for name, grid in results.grids.items()]


def _not_done(board: Board) -> list[tuple[str, int]]:
    counts = Counter(board.runs["status"])
    return [(status, counts[status]) for status in get_args(Status) if status != "done" and counts[status]]


def _groups(board: Board) -> list[tuple[str, list[dict[str, Any]]]]:
    """Gather tabs by their data set, those of one tail each together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for tab in board.tabs:
        name, _, factor = tab.title.partition(", imbalance factor ")
        chip = {"anchor": tab.anchor, "measured": tab.measured, "name": factor or name}
        found.setdefault(name if factor else "", []).append(chip)
    return list(found.items())


def _figures(tab: Tab) -> dict[str, str]:
    lines = tab.leagues[tab.opening]
    bars = board_figures.bars(lines)
    drawn = {
        "shots": figures.accuracies([("", bars)], f"Accuracy by shot group on {tab.title}") if bars else None,
        "cost": board_figures.cost(lines, f"Accuracy against cost on {tab.title}"),
    }
    return {name: svg for name, svg in drawn.items() if svg}


def _tab(tab: Tab, drawn: dict[str, str]) -> dict[str, Any]:
    """Gather what a tab of the HTML page shows."""
    fields = choices(tab)
    return {
        "title": tab.title,
        "anchor": tab.anchor,
        "table": board_table(tab, tab.lines, whole=True),
        "fields": fields,
        "leagues": leagues(tab, fields),
        "figures": drawn,
    }


def _section(tab: Tab, drawn: dict[str, str]) -> dict[str, Any]:
    """Gather what a document shows of a tab: the league it opens on, and all others with rows of ours."""
    shown: list[tuple[str, Table]] = []
    for league, lines in tab.leagues.items():
        if league == tab.opening or any(line.kind != "published" for line in lines):
            shown.append((protocol(league), board_table(tab, lines)))
    return {
        "title": tab.title,
        "anchor": tab.anchor,
        "leagues": shown,
        "others": len(tab.leagues) - len(shown),
        "figures": list(drawn),
    }
