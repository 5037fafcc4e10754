"""The leaderboard's pages: one file for browsers, one for code hosts, one to paste, and the table itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from bench.files import write_text
from bench.leaderboard import FEWEST, Board, Verdict, friedman
from bench.leaderboard.lines import Line, Tab, marks
from bench.metrics import RANKED
from bench.report import board_figures, exports, figures, rank_figure
from bench.report.columns import COLUMNS, line_table, style
from bench.report.page import Column, Table, Value, csv, render
from bench.report.text import counted, group_heads
from bench.report.track_page import render_track
from bench.report.widening import CHOICES, choices, leagues, places, protocol
from bench.rundir import Status

#: Methods that met fewer leagues stand at the end: a rank in one is chance.
FEW_LEAGUES = 3

#: The columns of a league's table, as far as its rows have something to say there.
SHOWN = (
    *("rank", "method", "n", *RANKED, "best", "published", "gap", "balanced", "worst_class", "ece"),
    *("time", "parameters", "year", "protocol"),
)

TITLE = "Long-tailed recognition: measured beside published"

CAPTIONS = {
    "shots": f"The league this tab opens on, at most {board_figures.MOST_BARS} rows: the best measured, then "
    "the best published. Mean over seeds, the whisker is one standard deviation.",
    "cost": "What is measured in that league, against what it costs. The line joins what no other beats "
    "in both.",
}


def render_index(board: Board, reports: Path) -> list[Path]:
    """Write the leaderboard as HTML, Markdown, LaTeX, CSV, JSON and BibTeX, and its track; return the paths.

    The same results and literature give the same bytes.
    """
    agreement = board_figures.agreement(board.lines, "Measured against published accuracy")
    across, told = _across(board)
    page: dict[str, Any] = {
        "across": across,
        "across_told": told,
        "title": TITLE,
        "summary": _summary(board),
        "verdicts": _verdicts(board.lines),
        "problems": board.problems,
        "recipes": [(grid.title, f"{name}.html") for name, grid in board.results.grids.items()],
        "not_done": _not_done(board),
        "judged": verdict_table(board),
        "agreement": agreement,
        "ranks": rank_table(board),
        "hints": {name: COLUMNS[name].hint for name in SHOWN} | dict(CHOICES.values()),
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
    if across:
        written["figures/ranks.svg"] = figures.standalone(across)
    for name, content in written.items():
        write_text(reports / name, content)
    return [*(reports / name for name in written), *render_track(board, reports)]


def board_table(tab: Tab, lines: Sequence[Line], *, whole: bool = False) -> Table:
    """Return the table of a tab's lines, of one league or, for a page that widens it, of the `whole` tab."""
    names, compared = _shown(tab, lines, whole), any(line.pair for line in lines)
    hidden = ("balanced", "worst_class", "ece", *(("parameters", "year") if compared else ()))
    told: dict[str, Any] = {"heads": group_heads(tab.sizes, tab.rule), "hidden": hidden}
    if whole:
        told["kinds"] = [line.kind for line in lines]
        told["data"] = [{"data-at": place} for place in places(lines, choices(tab))]
    return line_table(names, lines, marks(lines, ties=whole), **told)


def _shown(tab: Tab, lines: Sequence[Line], whole: bool) -> list[str]:
    """Return the columns in which any of the lines has something to say."""
    kinds = {line.kind for line in lines}
    measured, literature = "measured" in kinds, "published" in kinds
    ours = whole and kinds != {"published"}
    compared = any(line.pair for line in lines)
    says = {name: any(line.entry[name] is not None for line in lines) for name in RANKED[1:]}
    says |= {"best": measured, "published": compared, "gap": compared, "time": measured}
    says |= {"balanced": ours, "worst_class": ours, "ece": ours, "parameters": measured and whole}
    says |= {"year": literature and whole, "protocol": whole}
    return [name for name in SHOWN if says.get(name, True)]


def verdict_table(board: Board) -> Table:
    """Return every measured series beside the published number it is judged by."""
    titles = {
        line.key: tab.name if tab.factor is None else f"{tab.name}, {tab.factor:g}"
        for tab in board.tabs
        for line in tab.lines
    }
    data = Column(
        "data", "data set and imbalance factor", numeric=False, get=lambda line: Value(titles[line.key])
    )
    columns = [COLUMNS["method"], data, *(COLUMNS[name] for name in ("n", "measured", "judge", "gap"))]
    return Table.of(columns, [line for line in board.lines if line.pair])


def rank_table(board: Board) -> Table:
    """Return the average ranks of methods across leagues, with the number of leagues they rest on."""
    columns = [
        Column("method", numeric=False, get=lambda row: Value(row[0])),
        Column(
            "average rank",
            "mean of its ranks within leagues, 1 is best",
            get=lambda row: Value(f"{row[1]:.2f}", round(row[1], 6)),
        ),
        Column(
            "leagues",
            f"how many leagues of {FEWEST} methods or more it was ranked in",
            get=lambda row: Value(str(row[2]), row[2]),
        ),
    ]
    return Table.of(columns, sorted(board.average_ranks, key=lambda row: row[2] < FEW_LEAGUES))


def _across(board: Board) -> tuple[str | None, str]:
    """Draw the mean ranks of methods across data sets, None where too few meet, and say what is drawn."""
    ranking = friedman.across(board.entries)
    if ranking is None:
        return None, ""
    told = rank_figure.caption(ranking)
    return rank_figure.critical_difference(ranking, board.titles, told), told


def _summary(board: Board) -> str:
    """Say in a sentence what the page rests on."""
    methods, sources = ({number[name] for number in board.numbers} for name in ("method", "source"))
    told = (
        f"{len(board.numbers):,} published numbers of {counted(len(methods), 'method')} "
        f"from {counted(len(sources), 'source')}"
    )
    if not board.done:
        return f"{told}. Nothing is measured here yet."
    series = counted(len({one.key for one in board.done}), "measured cell")
    return f"{series} ({counted(len(board.done), 'run')}) beside {told}."


def _verdicts(lines: Sequence[Line]) -> list[tuple[str, str, int]]:
    counts = Counter(line.pairs[0]["verdict"] for line in lines if line.pairs)
    return [(style(verdict), str(verdict), counts[verdict]) for verdict in Verdict if counts[verdict]]


def _not_done(board: Board) -> list[tuple[str, int]]:
    counts = Counter(run.row["status"] for run in board.results)
    return [(status, counts[status]) for status in get_args(Status) if status != "done" and counts[status]]


def _groups(board: Board) -> list[tuple[str, list[dict[str, Any]]]]:
    """Gather tabs by their data set, those with a tail of their own together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for tab in board.tabs:
        chip = {"anchor": tab.anchor, "measured": tab.measured}
        if tab.factor is None:
            found.setdefault("", []).append(chip | {"name": tab.name})
        else:
            found.setdefault(tab.name, []).append(chip | {"name": f"{tab.factor:g}"})
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
