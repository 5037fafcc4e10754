"""The leaderboard as HTML, Markdown and LaTeX, with its table as CSV and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from bench.leaderboard import FEWEST, Board, friedman
from bench.leaderboard.grouping import grouped
from bench.leaderboard.leagues import League, headline_of
from bench.leaderboard.lines import Line, Tab, marks, rows
from bench.metrics import RANKED
from bench.report import board_figures, exports, figures, headline, rank_figure, values
from bench.report.columns import COLUMNS, line_table
from bench.report.filters import (
    AS_PAPERS,
    FILTERS,
    ONLY_PAPERS,
    OWN,
    codes,
    filters,
    kind_of,
    league_code,
    protocol,
)
from bench.report.page import csv, render, write
from bench.report.table import Column, Table, Value
from bench.report.text import counted, group_heads
from bench.report.track_page import render_track
from bench.report.values import FOOTNOTES
from bench.rundir import Status

#: The fewest leagues of an average rank.
FEWEST_LEAGUES = 3

#: Columns of measured rows only, shown if a reader chooses them.
OPTIONAL = ("geometric", "worst_tenth", "macro_f1", "interval", "track")

#: The columns of a league's table, if any of its rows has a value there.
SHOWN = (
    *("rank", "method", "n", "accuracy", "published", "gap", *RANKED[1:], "best"),
    *("balanced", "worst_class", "ece", *OPTIONAL, "time", "parameters", "year", "protocol"),
)

#: The columns shown only if a reader chooses them.
HIDDEN = ("balanced", "worst_class", "ece", *OPTIONAL, "parameters", "year")

TITLE = "Long-tailed recognition: measured beside published"

CAPTIONS = {
    "shots": f"The best measured of this league, at most {board_figures.MOST_ROWS}. A small dot is a seed, "
    "lines join common seeds, a large dot is the mean; the whisker is its 95 % interval, of three seeds or "
    "more, with the variance that the league shares. A diamond is the published number.",
    "classes": "Accuracy of classes by their training images, mean over seeds; of many classes in groups of "
    "as many. The best measured of this league, and the lowest.",
    "cost": "What is measured in this league, against what it costs. The line joins what no other beats "
    "in both.",
}


ABOUT_RANKS = (
    "A method enters a league once, with the median of its numbers there, measured and published alike; a "
    "league in which nothing is published is left out. A rank is 0 for the best of a league and 100 for the "
    f"last. An average is over at least {FEWEST_LEAGUES} leagues; two are comparable only as far as the "
    "methods met in the same ones."
)


def render_index(board: Board, reports: Path) -> list[Path]:
    """Write the leaderboard as HTML, Markdown, LaTeX, CSV, JSON and BibTeX, and its track; return the paths.

    The same results and literature give the same bytes.
    """
    alt = "Measured against published accuracy"
    judged = [line for line in board.lines if line.judged]
    agreement = board_figures.agreement(judged, alt)
    across, across_caption = _across(board)
    page: dict[str, Any] = {
        "across": across,
        "across_caption": across_caption,
        "title": TITLE,
        "summary": _summary(board),
        "problems": board.problems,
        "recipes": [(grid.title, f"{name}.html") for name, grid in board.results.grids.items()],
        "not_done": _not_done(board),
        "judged": verdict_table(board, judged),
        "about_judged": _about_judged(board.lines),
        "unjudged": len(judged) < sum(bool(line.pair) for line in board.lines),
        "about_ranks": ABOUT_RANKS,
        "agreement": agreement,
        "ranks": rank_table(board),
        "fewest": FEWEST_LEAGUES,
        "footnotes": FOOTNOTES,
        "captions": CAPTIONS,
        "files": ("index.csv", "index.json", "index.tex", "index.bib", "index.md"),
    }
    drawn = {tab.anchor: _figures(tab, tab.opening) for tab in board.tabs}
    sections = [_section(tab, drawn[tab.anchor]) for tab in board.tabs]
    files = {
        "index.html": render(
            "index.html.jinja",
            scripts=("tables.js", "board.js"),
            sets=grouped(board.tabs, lambda tab: tab.name),
            tabs=[_tab(tab) for tab in board.tabs],
            opening=board.opening.anchor if board.tabs else None,
            everything=board_figures.agreement(board.lines, alt),
            hints={name: COLUMNS[name].hint for name in SHOWN} | dict(FILTERS.values()),
            **page,
        ),
        "index.md": render("index.md.jinja", tabs=sections, **page),
        "index.tex": render("index.tex.jinja", tabs=sections, footnotes=FOOTNOTES),
        "index.bib": exports.bibtex(board),
        "index.csv": csv(exports.table(board)),
        "index.json": exports.json_lines(board),
    }
    for anchor, svgs in drawn.items():
        files |= {f"figures/{anchor}_{name}.svg": figures.standalone(svg) for name, svg in svgs.items()}
    for name, figure in (("agreement", agreement), ("ranks", across)):
        if figure:
            files[f"figures/{name}.svg"] = figures.standalone(figure)
    return [*write(reports, files), *render_track(board, reports)]


def board_table(tab: Tab, lines: Sequence[Line], *, whole: bool = False) -> Table:
    """Return a table of lines of a tab: of one league, or of the `whole` tab for a page with filters.

    Controls follow their method's row.
    """
    shown = rows(lines)
    heads = group_heads(tab.sizes, tab.rule) | {"accuracy": "measured (last epoch)"}
    marked = marks(shown, ties=whole)
    table = line_table(_shown(lines, whole), shown, marked, heads=heads, hidden=HIDDEN)
    at = [{"data-at": code} for code in codes(shown, filters(tab))] if whole else [{}] * len(shown)
    found = list[tuple[Sequence[Value], str, dict[str, str]]]()
    for line, row, data in zip(shown, table.rows, at, strict=True):
        found.append((row, line.kind, data))
        for name, control in line.controls.items():
            found.append((values.control_row(line, name, control, table.columns), "control", {}))
    return replace(
        table,
        rows=[row for row, _, _ in found],
        kinds=[kind for _, kind, _ in found],
        data=[data for _, _, data in found],
    )


def _shown(lines: Sequence[Line], whole: bool) -> list[str]:
    """Return the columns in which any of the lines has a value."""
    kinds = {line.kind for line in lines}
    ours, compared = kinds != {"published"}, any(line.pair or line.controls for line in lines)
    used = {name: any(line.entry[name] is not None for line in lines) for name in RANKED[1:]}
    used |= {"accuracy": ours, "gap": compared, "time": "measured" in kinds}
    used |= {"best": any(values.best(line).sort_key for line in lines)}
    used |= {"published": any(line.reported is not None for line in lines)}
    used |= dict.fromkeys(("balanced", "worst_class", "ece", *OPTIONAL), ours and whole)
    used |= {"parameters": "measured" in kinds and whole}
    used |= {"year": "published" in kinds and whole, "protocol": whole}
    return [name for name in SHOWN if used.get(name, True)]


def verdict_table(board: Board, judged: Sequence[Line]) -> Table:
    """Return the measured series with a published number of their protocol, and both numbers."""
    titles = {
        line.key: tab.name if tab.factor is None else f"{tab.name}, IF {tab.factor:g}"
        for tab in board.tabs
        for line in tab.lines
    }
    data = Column("data", numeric=False, get=lambda line: Value(titles[line.key]))
    columns = [COLUMNS["method"], data, *(COLUMNS[name] for name in ("n", "measured", "judge", "gap"))]
    return Table.of(columns, judged)


def rank_table(board: Board) -> Table:
    """Return the average ranks of methods, with the number of leagues."""
    columns = [
        Column("method", numeric=False, get=lambda row: Value(row[0])),
        Column(
            "average rank (0–100)",
            "mean of its ranks within leagues: 0 is the best, 100 the last of a league, however many it has",
            get=lambda row: Value.number(row[1], digits=0),
        ),
        Column(
            "leagues",
            f"how many leagues of {FEWEST} methods or more it was ranked in",
            get=lambda row: Value.number(row[2], digits=0),
        ),
    ]
    return Table.of(columns, [row for row in board.average_ranks if row[2] >= FEWEST_LEAGUES])


def _across(board: Board) -> tuple[str | None, str]:
    """Draw the mean ranks of methods across data sets, None if too few meet; return it with its caption."""
    ranking = friedman.across(board.entries)
    if ranking is None:
        return None, ""
    caption = rank_figure.caption(ranking)
    return rank_figure.critical_difference(ranking, board.titles, caption), caption


def _summary(board: Board) -> str:
    """Summarise the data of the page in a sentence."""
    methods, sources = ({number[name] for number in board.numbers} for name in ("method", "source"))
    published = (
        f"{len(board.numbers):,} published numbers of {counted(len(methods), 'method')} "
        f"from {counted(len(sources), 'source')}"
    )
    if not board.done:
        return f"{published}. Nothing is measured here yet."
    series = counted(len({one.key for one in board.done}), "measured cell")
    return f"{series} ({counted(len(board.done), 'run')}) beside {published}."


def _about_judged(lines: Sequence[Line]) -> str:
    ours = [line for line in lines if line.kind == "measured"]
    judged = [line for line in ours if line.judged]
    unlike = [line for line in ours if line.pair and not line.judged]
    return (
        f"Measured rows with a published number of the same protocol: {len(judged)} of {len(ours)}. With "
        f"numbers of other protocols only, where the row names what differs: {len(unlike)}. "
        "The others have none."
    )


def _not_done(board: Board) -> list[tuple[str, int]]:
    counts = Counter(run.row["status"] for run in board.results)
    return [(status, counts[status]) for status in get_args(Status) if status != "done" and counts[status]]


def _figures(tab: Tab, league: League) -> dict[str, str]:
    lines, named = tab.leagues[league], f"{tab.title}, {protocol(league)}"
    drawn = {
        "shots": board_figures.shots(lines, f"Accuracy by shot group on {named}"),
        "classes": board_figures.classes(lines, f"Accuracy of classes by their frequency on {named}"),
        "cost": board_figures.cost(lines, f"Accuracy against cost on {named}"),
    }
    return {name: svg for name, svg in drawn.items() if svg}


def _tab(tab: Tab) -> dict[str, Any]:
    """Return the contents of a tab of the HTML page; leagues by kind, each with its code and sentences."""
    fields = filters(tab)
    leagues: dict[str, list[dict[str, str]]] = {AS_PAPERS: [], OWN: [], ONLY_PAPERS: []}
    drawn = {}
    for league, lines in tab.leagues.items():
        code = league_code(lines, fields)
        leagues[kind_of(lines)].append(
            {
                "code": code,
                "name": protocol(league, lines),
                "count": str(len(rows(lines))),
                "headline": headline.headline(lines),
                "agreement": headline.agreement(lines),
            }
        )
        if any(line.kind == "measured" for line in lines):
            drawn[code] = _figures(tab, league)
    return {
        "tab": tab,
        "table": board_table(tab, tab.lines, whole=True),
        "fields": fields,
        "leagues": {kind: found for kind, found in leagues.items() if found},
        "rank": headline_of(line.entry for line in tab.lines),
        "first": league_code(tab.leagues[tab.opening], fields),
        "figures": {code: svgs for code, svgs in drawn.items() if svgs},
    }


def _section(tab: Tab, drawn: dict[str, str]) -> dict[str, Any]:
    """Return a tab's section of a document: the league shown first, and all others with rows of ours."""
    shown = []
    for league, lines in tab.leagues.items():
        if league == tab.opening or any(line.kind != "published" for line in lines):
            sentences = " ".join(filter(None, (headline.headline(lines), headline.agreement(lines))))
            shown.append((protocol(league, lines), sentences, board_table(tab, lines)))
    return {
        "title": tab.title,
        "anchor": tab.anchor,
        "leagues": shown,
        "others": len(tab.leagues) - len(shown),
        "figures": list(drawn),
    }
