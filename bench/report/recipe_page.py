"""The pages of one recipe: what it requested, the results, and how they were measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from bench.errors import BenchError, did_you_mean
from bench.leaderboard.lines import RecipeLine, marks
from bench.metrics import METRICS, RANKED, gini, pareto_ratio
from bench.records import Results
from bench.report import figures
from bench.report.columns import COLUMNS, line_table
from bench.report.effort import effort_sections
from bench.report.page import csv, render, write
from bench.report.recipe_sections import Section, sections, split_of
from bench.report.recipe_settings import method_table, protocol_table
from bench.report.table import Table
from bench.report.text import blocks, counted, group_heads
from bench.report.values import seeds_of
from bench.report.variance_table import variance_table
from bench.rundir import Status

#: The columns of a recipe's tables.
SHOWN = (
    *("asked", "backbone", "done", *RANKED, "balanced", "worst_class", "ece"),
    *("best", "size", "speed", "minutes"),
)

#: Columns shown only if a reader chooses them.
OPTIONAL = ("interval", "track", *(name for name in METRICS if name not in SHOWN))

#: Files to download and their extensions.
FILES = {"CSV, a line for each run": "csv", "Markdown": "md", "LaTeX": "tex"}

_CAPTION = (
    "percent; mean ± standard deviation over n seeds; bold is the best over three seeds or more, and all "
    "of them whose difference to it over common seeds may be noise (t test at 5 %, its variance shared by "
    "the table: the median over rows); a single seed has no ±, and one or two are never bold"
)


def render_recipe(results: Results, recipe: str, reports: Path) -> list[Path]:
    """Write a recipe's page as HTML, Markdown and LaTeX, its figures, and its runs as CSV; return the paths.

    The same results give the same bytes, except for links to the leaderboard and to the pages of runs, which
    are there if those pages are.

    Raises:
        BenchError: no recipe of that name was run.
    """
    recipes = results.grids
    if recipe not in recipes:
        raise BenchError(f"{results.root}: recipe {recipe!r} was not run{did_you_mean(recipe, recipes)}")
    grid = recipes[recipe]
    runs = results.grid_table(grid)
    parts = sections(results, grid)
    lines = [line for part in parts for line in part.lines]
    efforts = effort_sections(results, grid)
    counts = Counter(runs.status)
    pages = {page.stem.rpartition("-")[2]: f"runs/{page.name}" for page in reports.glob("runs/*.html")}
    measured = [(part.title, rows) for part in parts if (rows := _figure_rows(part))]
    page: dict[str, Any] = {
        "title": grid.title,
        "recipe": recipe,
        "notes": blocks(grid.notes),
        "statuses": [(status, counts[status]) for status in get_args(Status) if counts[status]],
        "sections": [_section(part, pages) for part in parts],
        "comparisons": efforts,
        "variance": variance_table(lines),
        "protocol": protocol_table(lines),
        "methods": method_table(lines),
        "hints": {name: COLUMNS[name].hint for name in (*SHOWN, *OPTIONAL) if COLUMNS[name].hint},
        "figure": f"{recipe}_shots.svg" if measured else None,
        "leaderboard": (reports / "index.html").exists(),
        "csv": f"{recipe}.csv",
        "files": [(kind, f"{recipe}.{end}") for kind, end in FILES.items()],
    }
    files = {f"{recipe}.{end}": render(f"recipe.{end}.jinja", **page) for end in ("html", "md", "tex")}
    files[f"{recipe}.csv"] = csv(runs)
    files |= {f"{recipe}_{e['file']}": figures.standalone(e["figure"]) for e in efforts if e["figure"]}
    if measured:
        alt = f"Accuracy of the methods of {grid.title}, over all classes and by shot group"
        files[f"{recipe}_shots.svg"] = figures.standalone(figures.accuracies(measured, alt))
    return write(reports, files)


def _section(part: Section, pages: Mapping[str, str]) -> dict[str, Any]:
    """Return the contents of a section, None if unknown; `pages` are the existing ones, by series."""
    title, rows, data, table = part.title, _figure_rows(part), part.data, _table(part)
    linked = [
        [replace(row[0], href=pages.get(line.runs[0].series if line.runs else "", row[0].href)), *row[1:]]
        for line, row in zip(part.begun, table.rows, strict=True)
    ]
    return {
        "title": title,
        "anchor": part.anchor,
        "copy_of": part.dataset.copy_of,
        "copy_kind": part.dataset.copy_kind,
        "comparable": part.dataset.comparable,
        "splits": part.splits,
        "facts": _facts(part),
        "table": table,
        "linked_table": replace(table, rows=linked),
        "not_done": _not_done(part),
        "counts_figure": data
        and figures.class_counts(data["class_counts"], part.groups, f"Training images per class of {title}"),
        "accuracy_figure": figures.accuracies([("", rows)], f"Accuracies on {title}") if rows else None,
    }


def _table(part: Section) -> Table:
    """Return the table of the begun lines; the backbone has a column if there are several."""
    lines, known = part.begun, {line.key for line in part.begun}
    methods = [line for line in lines if not line.whole]
    groups = [(line.requested[0].cell.backbone.name, *map(split_of, line.runs[:1])) for line in methods]
    sizes = {name: len(classes) for name, classes in part.groups.items()}
    names = [name for name in SHOWN if name != "backbone" or len(part.backbones) > 1]
    return line_table(
        (*names, *OPTIONAL),
        lines,
        marks(methods, groups=groups),
        heads=group_heads(sizes, part.dataset.shots),
        hidden=OPTIONAL,
        caption=_CAPTION,
        kinds=["control" if line.whole and line.whole.key in known else "" for line in lines],
    )


def _facts(part: Section) -> list[str]:
    if part.data is None:
        return ["Nothing is measured yet."]
    counts, tests = part.data["class_counts"], part.data["test_counts"]
    devices = dict.fromkeys(run.row["device"] for run in part.done if run.row["device"])
    precisions = dict.fromkeys(run.row["precision"] for run in part.done if run.row["precision"])
    return [
        f"{sum(counts):,} training images of {counted(len(counts), 'class')}, "
        f"from {max(counts):,} to {min(counts):,} per class "
        f"(Gini coefficient {gini(counts):.2f}, Pareto ratio {pareto_ratio(counts):.2g})",
        f"{sum(tests):,} {'held-out training' if part.dataset.held_out else 'test'} images",
        f"split (train/test) {' and '.join(part.splits)}",
        f"measured on {', '.join(devices) or 'n/a'}, trained in {' and '.join(precisions) or 'n/a'}",
        *(part.backbones if len(part.backbones) == 1 else []),
    ]


def _not_done(part: Section) -> list[tuple[str, str, str]]:
    """Return status, seeds or labels, and reason: failed or blocked seeds, and labels without a row."""
    found = [
        (status, f"{_label(line)}, {seeds_of(seeds)}: {status}", reason.partition("\n")[0])
        for line in part.lines
        for status, reason, seeds in line.not_done
        if reason
    ]
    labels = list(dict.fromkeys(line.label for line in part.lines if not line.begun))
    if labels and len(part.begun) < len(part.lines):
        found.append(("missing", counted(len(labels), "label") + " not run yet", ", ".join(labels)))
    return found


def _label(line: RecipeLine) -> str:
    return line.label + (f" [{line.variant}]" if line.variant else "")


def _figure_rows(part: Section) -> Sequence[figures.FigureRow]:
    lines = [line for line in part.lines if line.runs]
    titles = Counter(line.name for line in lines if not line.whole)
    labels = {line.label: f"[{line.label}]" if titles[line.name] > 1 else "" for line in lines}
    return [
        figures.FigureRow.of(
            " ".join(filter(None, (line.name, labels[line.label], line.variant, line.split))), line
        )
        for line in lines
    ]
