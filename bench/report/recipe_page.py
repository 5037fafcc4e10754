"""The pages of one recipe: what it asked for, what came out, and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench.cell import STANDARD, DataSet
from bench.data.split.longtail import shot_groups
from bench.errors import BenchError, did_you_mean
from bench.files import write_text
from bench.leaderboard import sets
from bench.leaderboard.board import variants
from bench.leaderboard.entries import entry, over_seeds
from bench.leaderboard.lines import Asked, marks
from bench.metrics import METRICS, RANKED, gini, pareto_ratio
from bench.records import Grid, Result, Results
from bench.report import figures
from bench.report.columns import COLUMNS, line_table
from bench.report.effort import effort_sections
from bench.report.page import Table, csv, render
from bench.report.recipe_controls import beneath
from bench.report.recipe_missing import missing
from bench.report.recipe_settings import method_table, protocol_table
from bench.report.text import blocks, counted, group_heads
from bench.report.variance_table import variance_table
from bench.rundir import State, Status

#: The columns of a recipe's tables.
SHOWN = (
    "asked",
    "backbone",
    "done",
    *RANKED,
    "balanced",
    "worst_class",
    "ece",
    "best",
    "size",
    "speed",
    "minutes",
)

#: What a reader may take along, and how each file ends.
FILES = {"CSV, a line for each run": "csv", "Markdown": "md", "LaTeX": "tex"}
#: Columns that a reader may choose besides.
OPTIONAL = ("interval", "track", *(name for name in METRICS if name not in SHOWN))

_CAPTION = (
    "percent; mean ± standard deviation over n seeds; bold is the best over three seeds or more, and all "
    "of them whose difference to it over common seeds may be noise (t test at 5 %, its variance shared by "
    "the table: the median over rows); a single seed has no ±, and one or two are never bold"
)


@dataclass(frozen=True)
class Section:
    """One data set with one imbalance factor: all that may stand in one table.

    `lines` are never averaged across different settings or different splits.
    """

    dataset: DataSet
    imbalance_factor: float
    lines: tuple[Asked, ...]

    @property
    def title(self) -> str:
        """What it is called."""
        name = self.dataset.title or self.dataset.name
        tail = "" if self.dataset.tail == STANDARD else f", {self.dataset.tail}"
        if self.dataset.profile == "natural":
            own = sets.tail(self.data["class_counts"]) if self.data else "its own tail"
            return f"{name}, {own}{tail}"
        return f"{name}, imbalance factor {self.imbalance_factor:g}{tail}"

    @property
    def anchor(self) -> str:
        """Its name within the page."""
        told = [] if self.dataset.tail == STANDARD else [self.dataset.tail]
        words = [self.dataset.name, f"if{self.imbalance_factor:g}", *told]
        return "-".join(words).replace(", ", "-").replace(" ", "-")

    @cached_property
    def done(self) -> list[Result]:
        """Its runs that have numbers."""
        return [run for line in self.lines for run in line.runs]

    @property
    def data(self) -> Mapping[str, Any] | None:
        """The `data` block of a finished run's record, None while there is none."""
        return self.done[0].record["data"] if self.done else None

    @cached_property
    def splits(self) -> list[str]:
        """The different splits that its runs were measured on."""
        return sorted({split_of(run) for run in self.done})

    @property
    def begun(self) -> list[Asked]:
        """The lines of which a run was begun; all, as long as none was."""
        return [line for line in self.lines if line.begun] or list(self.lines)

    @property
    def backbones(self) -> list[str]:
        """The different backbones, in the order of the recipe."""
        return list(dict.fromkeys(line.asked[0].cell.backbone.name for line in self.lines))

    @property
    def groups(self) -> dict[str, list[int]]:
        """The classes of each shot group, empty while their counts are not known."""
        counts = self.data["class_counts"] if self.data else None
        return {} if counts is None else shot_groups(np.asarray(counts), self.dataset.shots)


def render_recipe(results: Results, recipe: str, reports: Path) -> list[Path]:
    """Write a recipe's page as HTML, Markdown and LaTeX, its figure, and its runs as CSV; return their paths.

    The same results give the same bytes, but for links to the leaderboard and to the pages of runs, which are
    there if those are.

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
    drawn = {f"{recipe}_{e['file']}": figures.standalone(e["figure"]) for e in efforts if e["figure"]}
    counts = Counter(runs.status)
    pages = {page.stem.rpartition("-")[2]: f"runs/{page.name}" for page in reports.glob("runs/*.html")}
    measured = [(part.title, rows) for part in parts if (rows := _rows(part))]
    page: dict[str, Any] = {
        "title": grid.title,
        "recipe": recipe,
        "notes": blocks(grid.notes),
        "statuses": [(status, counts[status]) for status in get_args(Status) if counts[status]],
        "sections": [_section(part, pages) for part in parts],
        "efforts": efforts,
        "variance": variance_table(lines),
        "protocol": protocol_table(lines),
        "methods": method_table(lines),
        "hints": {name: COLUMNS[name].hint for name in (*SHOWN, *OPTIONAL) if COLUMNS[name].hint},
        "figure": f"{recipe}_shots.svg" if measured else None,
        "leaderboard": (reports / "index.html").exists(),
        "csv": f"{recipe}.csv",
        "files": [(kind, f"{recipe}.{end}") for kind, end in FILES.items()],
    }
    files = {
        f"{recipe}.html": render("recipe.html.jinja", **page),
        f"{recipe}.md": render("recipe.md.jinja", **page),
        f"{recipe}.tex": render("recipe.tex.jinja", **page),
        f"{recipe}.csv": csv(runs),
        **drawn,
    }
    if measured:
        alt = f"Accuracy of the methods of {grid.title}, over all classes and by shot group"
        files[f"{recipe}_shots.svg"] = figures.standalone(figures.accuracies(measured, alt))
    for name, content in files.items():
        write_text(reports / name, content)
    return [reports / name for name in files]


def sections(results: Results, grid: Grid) -> list[Section]:
    """Order a grid's runs into sections, in the order of the recipe; a search's trials are told apart."""
    states = results.states(cell for _, cell in grid.cells)
    trials = set(grid.search.trial_runs) if grid.search else set()
    found = dict[tuple[DataSet, float], dict[str, dict[str, list[Result]]]]()
    for label, cell in grid.cells:
        if cell.run_id in trials:
            continue
        run = results.of(cell)
        labels = found.setdefault((cell.dataset, cell.imbalance_factor), {})
        labels.setdefault(label, {}).setdefault(run.series, []).append(run)
    return [
        Section(
            *key,
            beneath([line for of in labels.items() for line in _lines(*of, states)], grid),
        )
        for key, labels in found.items()
    ]


def _lines(
    label: str, series: Mapping[str, Sequence[Result]], states: Mapping[str, State]
) -> Iterable[Asked]:
    firsts = [runs[0].cell for runs in series.values()]
    for runs, variant in zip(series.values(), variants(firsts), strict=True):
        splits = dict[str, list[Result]]()
        for run in runs:
            if run.row["status"] == "done":
                splits.setdefault(split_of(run), []).append(run)
        waiting = [run for run in runs if run.row["status"] != "done"]  # told with the first
        for place, (split, done) in enumerate((splits or {"": []}).items()):
            asked = [run for run in runs if run in done or (place == 0 and run in waiting)]
            about = {name: done[0].row[name] if done else None for name in ("title", "reconstruction")}
            about["headline"] = done[0].headline if done else None
            told = entry(kind="measured", key=asked[0].run_id, n=len(done), **about, **over_seeds(done))
            yield Asked(
                told,
                runs=tuple(done),
                variant=variant,
                label=label,
                asked=tuple(asked),
                states=states,
                split=split if len(splits) > 1 else "",
            )


def split_of(run: Result) -> str:
    """Name the split a run was measured on, train and test."""
    return f"{str(run.row['fingerprint_train'])[:6]}/{str(run.row['fingerprint_test'])[:6]}"


def _section(part: Section, pages: Mapping[str, str]) -> dict[str, Any]:
    """Gather what a section shows, None what is not known; `pages` are those there are, by series."""
    title, rows, data, table = part.title, _rows(part), part.data, _table(part)
    leading = [
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
        "leading": replace(table, rows=leading),
        "not_done": missing(part.lines, part.begun),
        "counts_figure": data
        and figures.class_counts(data["class_counts"], part.groups, f"Training images per class of {title}"),
        "accuracy_figure": figures.accuracies([("", rows)], f"Accuracies on {title}") if rows else None,
    }


def _table(part: Section) -> Table:
    """Return the table; the backbone has a column where there are several."""
    lines, known = part.begun, {line.key for line in part.begun}
    own = [line for line in lines if not line.whole]
    groups = [(line.asked[0].cell.backbone.name, *map(split_of, line.runs[:1])) for line in own]
    kinds = ["control" if line.whole and line.whole.key in known else "" for line in lines]
    sizes = {name: len(classes) for name, classes in part.groups.items()}
    heads = group_heads(sizes, part.dataset.shots)
    names = [name for name in SHOWN if name != "backbone" or len(part.backbones) > 1]
    told: dict[str, Any] = {"heads": heads, "hidden": OPTIONAL, "caption": _CAPTION, "kinds": kinds}
    return line_table((*names, *OPTIONAL), lines, marks(own, groups=groups), **told)


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


def _rows(part: Section) -> list[figures.Row]:
    lines = [line for line in part.lines if line.runs]
    titles = Counter(line.name for line in lines if not line.whole)
    labels = {line.label: f"[{line.label}]" if titles[line.name] > 1 else "" for line in lines}
    return [
        figures.Row(
            " ".join(filter(None, (line.name, labels[line.label], line.variant, line.split))),
            {metric: line.by_seed(metric) for metric in RANKED},
        )
        for line in lines
    ]
