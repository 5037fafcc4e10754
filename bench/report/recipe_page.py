"""The pages of one recipe: what it asked for, what came out, and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench.cell import STANDARD, DataSet
from bench.data.split.longtail import shot_groups
from bench.errors import BenchError, did_you_mean
from bench.files import write_text
from bench.leaderboard.board import settings, variants, written
from bench.leaderboard.entries import entry, over_seeds
from bench.leaderboard.lines import Asked, marks
from bench.metrics import METRICS, RANKED, gini, pareto_ratio
from bench.records import Grid, Result, Results
from bench.report import figures
from bench.report.columns import COLUMNS, line_table, seeds_of
from bench.report.effort import effort_sections
from bench.report.page import Table, Value, csv, render
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
            counts = self.data and self.data["class_counts"]
            sizes = f" of {max(counts):,} to {min(counts):,} images" if counts else ""
            return f"{name}, its own tail{sizes}{tail}"
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
    """Write a recipe's page as HTML and Markdown, its figure, and its runs as CSV; return their paths.

    The same results give the same bytes.

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
    measured = [(part.title, bars) for part in parts if (bars := _bars(part))]
    page: dict[str, Any] = {
        "title": grid.title,
        "recipe": recipe,
        "notes": blocks(grid.notes),
        "statuses": [(status, counts[status]) for status in get_args(Status) if counts[status]],
        "efforts": efforts,
        "sections": [_section(part) for part in parts],
        "variance": variance_table(lines),
        "protocol": _protocol(lines),
        "methods": _methods(lines),
        "hints": {name: COLUMNS[name].hint for name in (*SHOWN, *OPTIONAL) if COLUMNS[name].hint},
        "figure": f"{recipe}_shots.svg" if measured else None,
        "csv": f"{recipe}.csv",
    }
    files = {
        f"{recipe}.html": render("recipe.html.jinja", **page),
        f"{recipe}.md": render("recipe.md.jinja", **page),
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
            *key, tuple(line for label, series in labels.items() for line in _lines(label, series, states))
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


def _section(part: Section) -> dict[str, Any]:
    """Gather what a section shows; figures are None while nothing is known."""
    title, bars, data = part.title, _bars(part), part.data
    return {
        "title": title,
        "anchor": part.anchor,
        "copy_of": part.dataset.copy_of,
        "copy_kind": part.dataset.copy_kind,
        "comparable": part.dataset.comparable,
        "splits": part.splits,
        "facts": _facts(part),
        "table": _table(part),
        "not_done": [told for line in part.lines for told in _not_done(line)] + _not_begun(part),
        "counts_figure": data
        and figures.class_counts(data["class_counts"], part.groups, f"Training images per class of {title}"),
        "accuracy_figure": figures.accuracies([("", bars)], f"Accuracies on {title}") if bars else None,
    }


def _table(part: Section) -> Table:
    """Return the table; the backbone has a column where there are several."""
    lines = part.begun
    groups = [(line.asked[0].cell.backbone.name, *map(split_of, line.runs[:1])) for line in lines]
    sizes = {name: len(classes) for name, classes in part.groups.items()}
    heads = group_heads(sizes, part.dataset.shots)
    names = [name for name in SHOWN if name != "backbone" or len(part.backbones) > 1]
    told = marks(lines, groups=groups)
    return line_table((*names, *OPTIONAL), lines, told, heads=heads, hidden=OPTIONAL, caption=_CAPTION)


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


def _bars(part: Section) -> list[figures.Bars]:
    lines = [line for line in part.lines if line.runs]
    titles = Counter(line.name for line in lines)
    labels = {line.label: f"[{line.label}]" if titles[line.name] > 1 else "" for line in lines}
    return [
        (
            " ".join(filter(None, (line.name, labels[line.label], line.variant, line.split))),
            {metric: line.values(metric) for metric in RANKED},
        )
        for line in lines
    ]


def _not_done(line: Asked) -> list[tuple[str, str, str]]:
    """Say why seeds of a line have no number, where more is known than the table says."""
    name = line.label + (f" [{line.variant}]" if line.variant else "")
    return [
        (status, f"{name}, {seeds_of(seeds)}: {status}", reason.partition("\n")[0])
        for status, reason, seeds in line.not_done
        if reason
    ]


def _not_begun(part: Section) -> list[tuple[str, str, str]]:
    """Say which lines the table leaves out."""
    names = list(dict.fromkeys(line.label for line in part.lines if not line.begun))
    if not names or len(part.begun) == len(part.lines):
        return []
    return [("missing", counted(len(names), "label") + " not run yet", ", ".join(names))]


def _protocol(lines: Iterable[Asked]) -> Table:
    """List the settings: first those that differ, by value, then those that all methods share."""
    said: dict[str, dict[str, list[str]]] = {}
    for line in lines:
        for name, value in settings(line.asked[0].cell).items():
            labels = said.setdefault(name, {}).setdefault(written(value), [])
            if line.label not in labels:
                labels.append(line.label)
    rows = [
        (name, value, of)
        for name, values in sorted(said.items(), key=lambda item: len(item[1]) == 1)
        for value, of in _of(values)
    ]
    return Table.listing(("setting", "value", "of"), rows)


def _of(values: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Say which labels have each value, the one that is usual last; it need not name them."""
    rarest_first = sorted(values, key=lambda value: len(values[value]))
    told = [(value, ", ".join(values[value])) for value in rarest_first]
    usual = rarest_first[-1]
    if len(values) == 1:
        return [(usual, "all methods")]
    named = {label for value in rarest_first[:-1] for label in values[value]}
    if len(values[usual]) > 2 and named.isdisjoint(values[usual]):
        told[-1] = usual, "all others"
    return told


def _methods(lines: Iterable[Asked]) -> Table:
    """List each label's method and hyper-parameters, those that are not its defaults first."""
    rows = {}
    for line in lines:
        method, paper = line.asked[0].cell.method, line.runs[0].row["paper"] if line.runs else None
        changed = {name: value for name, value in method.params.items() if name in method.changed}
        kept = {name: value for name, value in method.params.items() if name not in method.changed}
        name = Value(f"{line.name}, version {method.version}", href=paper)
        rows[line.label, str(method)] = (line.label, name, _listed(changed), _listed(kept))
    heads = ("label", "method", "hyper-parameters set", "at their defaults")
    return Table.listing(heads, rows.values())


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {written(value)}" for name, value in values.items()) or "none"
