"""The pages of one recipe: what it asked for, what came out, and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bench.errors import BenchError, did_you_mean
from bench.files import write_text
from bench.records import Results
from bench.report import figures
from bench.report.page import Column, Table, Value, csv, render
from bench.report.recipe_table import HINTS, name_of, section_table, seeds_of
from bench.report.summary import Row, Section, sections, settings, written
from bench.report.text import blocks, counted
from bench.rundir import Status


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
    parts = sections(results, grid, runs)
    rows = [row for part in parts for row in part.rows]
    counts = Counter(runs.status)
    measured = [(_title(part), _bars(part)) for part in parts if _bars(part)]
    page: dict[str, Any] = {
        "title": grid.title,
        "recipe": recipe,
        "notes": blocks(grid.notes),
        "statuses": [(status, counts[status]) for status in get_args(Status) if counts[status]],
        "sections": [_section(part) for part in parts],
        "protocol": _protocol(rows),
        "methods": _methods(rows),
        "hints": HINTS,
        "figure": f"{recipe}_shots.svg" if measured else None,
        "csv": f"{recipe}.csv",
    }
    written = {
        f"{recipe}.html": render("recipe.html.jinja", **page),
        f"{recipe}.md": render("recipe.md.jinja", **page),
        f"{recipe}.csv": csv(runs),
    }
    if measured:
        alt = f"Accuracy of the methods of {grid.title}, over all classes and by shot group"
        written[f"{recipe}_shots.svg"] = figures.standalone(figures.accuracies(measured, alt))
    for name, content in written.items():
        write_text(reports / name, content)
    return [reports / name for name in written]


def _title(part: Section) -> str:
    name = part.dataset.title or part.dataset.name
    if part.dataset.profile == "natural":
        counts = part.data and part.data["class_counts"]
        return f"{name}, its own tail" + (f" of {max(counts):,} to {min(counts):,} images" if counts else "")
    return f"{name}, imbalance factor {part.imbalance_factor:g}"


def _section(part: Section) -> dict[str, Any]:
    """Gather what a section shows; figures are None while nothing is known."""
    title, bars, data, groups = _title(part), _bars(part), part.data, part.groups
    return {
        "title": title,
        "anchor": f"{part.dataset.name}-if{part.imbalance_factor:g}",
        "copy_of": part.dataset.copy_of,
        "copy_kind": part.dataset.copy_kind,
        "splits": part.splits,
        "facts": _facts(part),
        "table": section_table(part),
        "not_done": [line for row in part.rows for line in _not_done(row)] + _not_begun(part),
        "counts_figure": data
        and groups
        and figures.class_counts(data["class_counts"], groups, f"Training images per class of {title}"),
        "accuracy_figure": figures.accuracies([("", bars)], f"Accuracies on {title}") if bars else None,
    }


def _facts(part: Section) -> list[str]:
    if part.data is None:
        return ["Nothing is measured yet."]
    counts, tests = part.data["class_counts"], part.data["test_counts"]
    devices = dict.fromkeys(device for row in part.rows for device in row.done.device.dropna())
    return [
        f"{sum(counts):,} training images of {counted(len(counts), 'class')}, "
        f"from {max(counts):,} to {min(counts):,} per class",
        f"{sum(tests):,} {'held-out training' if part.dataset.held_out else 'test'} images",
        f"split (train/test) {' and '.join(part.splits)}",
        f"measured on {', '.join(devices) or 'n/a'}",
        *(part.backbones if len(part.backbones) == 1 else []),
    ]


def _bars(part: Section) -> list[figures.Bars]:
    metrics = ("accuracy", "many", "medium", "few")
    rows = [row for row in part.rows if len(row.done)]
    titles = Counter(name_of(row) for row in rows)
    labels = {row.label: f"[{row.label}]" if titles[name_of(row)] > 1 else "" for row in rows}
    return [
        (
            " ".join(filter(None, (name_of(row), labels[row.label], row.variant, row.split))),
            {metric: row.values(metric) for metric in metrics},
        )
        for row in rows
    ]


def _not_done(row: Row) -> list[tuple[str, str, str]]:
    """Say why seeds of a row have no number, where more is known than the table says."""
    name = row.label + (f" [{row.variant}]" if row.variant else "")
    return [
        (status, f"{name}, {seeds_of(seeds)}: {status}", reason.partition("\n")[0])
        for status, reason, seeds in row.not_done
        if reason
    ]


def _not_begun(part: Section) -> list[tuple[str, str, str]]:
    """Say which rows the table leaves out."""
    names = list(dict.fromkeys(row.label for row in part.rows if not row.begun))
    if not names or len(part.begun) == len(part.rows):
        return []
    return [("missing", counted(len(names), "label") + " not run yet", ", ".join(names))]


def _protocol(rows: Iterable[Row]) -> Table:
    """List the settings: first those that differ, by value, then those that all methods share."""
    said: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for name, value in settings(row.cell).items():
            labels = said.setdefault(name, {}).setdefault(written(value), [])
            if row.label not in labels:
                labels.append(row.label)
    lines = [
        [Value(name), Value(value), Value(of)]
        for name, values in sorted(said.items(), key=lambda item: len(item[1]) == 1)
        for value, of in _of(values)
    ]
    return _listing(("setting", "value", "of"), lines)


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


def _methods(rows: Iterable[Row]) -> Table:
    """List each label's method and hyper-parameters, those that are not its defaults first."""
    lines = {}
    for row in rows:
        method = row.cell.method
        changed = {name: value for name, value in method.params.items() if name in method.changed}
        kept = {name: value for name, value in method.params.items() if name not in method.changed}
        lines[row.label, str(method)] = [
            Value(row.label),
            Value(f"{name_of(row)}, version {method.version}", href=row.first("paper")),
            Value(_listed(changed)),
            Value(_listed(kept)),
        ]
    return _listing(("label", "method", "hyper-parameters set", "at their defaults"), list(lines.values()))


def _listing(heads: Sequence[str], rows: Sequence[Sequence[Value]]) -> Table:
    return Table([Column(head, numeric=False) for head in heads], rows)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {written(value)}" for name, value in values.items()) or "none"
