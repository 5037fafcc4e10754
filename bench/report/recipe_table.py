"""The table of one data set and imbalance factor: a row per method, numbers over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.leaderboard.compare import best
from bench.report.page import Column, Table, Value
from bench.report.sets import group_heads
from bench.report.summary import Row, Section, split_of
from bench.report.text import mean, number, order, short, spread

#: What each metric's column says to who points at it.
HINTS = {
    "accuracy": "share of test images classified correctly, by the weights of the last epoch",
    "many": "mean accuracy of the classes with this many training images",
    "balanced": "mean over classes of their accuracies",
    "worst_class": "the lowest accuracy of a class",
    "ece": "expected calibration error: how far confidence is from accuracy, 15 bins",
    "best": "the epoch that scored best on the test set, as papers often report it, and by how much "
    "choosing it flatters the last epoch",
    "parameters": "all that the method learns; its scores may need fewer",
    "images_per_second": "training speed, mean over seeds; it depends on the machine",
    "minutes": "time of training one run, without what it starts from, mean over seeds; it depends on the "
    "machine and on what else ran there",
}


#: The metrics whose best is bold.
RANKED = ("accuracy", "many", "medium", "few")


def section_table(part: Section) -> Table:
    """Return the table; the backbone has a column where there are several."""
    caption = (
        "percent; mean ± standard deviation over n seeds; bold is the best over several seeds, and all whose "
        "paired difference to it over common seeds includes zero; a single seed has no ± and is never bold"
    )
    bold = {name: _bold(part.rows, name) for name in RANKED}
    return Table(_columns(part), [_cells(row, part, bold) for row in part.begun], caption)


def name_of(row: Row) -> str:
    """Return the method's title, or its label as long as no run has told it."""
    return str(row.first("title") or row.label)


def seeds_of(seeds: Sequence[int]) -> str:
    """Write which seeds."""
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _columns(part: Section) -> list[Column]:
    sizes = {name: len(classes) for name, classes in (part.groups or {}).items()}
    heads = group_heads(sizes, part.dataset.shots)
    return [
        Column("method", numeric=False),
        *([Column("backbone", numeric=False)] if len(part.backbones) > 1 else []),
        Column("n", "seeds that are done, of those asked for"),
        Column("accuracy (last epoch)", HINTS["accuracy"], headline=True),
        *(Column(head, HINTS["many"]) for head in heads.values()),
        Column("balanced", HINTS["balanced"]),
        Column("worst class", HINTS["worst_class"]),
        Column("ECE", HINTS["ece"]),
        Column("best on test (selection optimism)", HINTS["best"]),
        Column("parameters", HINTS["parameters"]),
        Column("images/s", HINTS["images_per_second"]),
        Column("minutes", HINTS["minutes"]),
    ]


def _bold(rows: Sequence[Row], name: str) -> set[str]:
    """Return the keys of the rows that are bold, among those of one backbone and one split."""
    alike: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for row in rows:
        if len(row.done):
            rivals = alike.setdefault((row.cell.backbone.name, split_of(row.done.iloc[0])), {})
            rivals[_key(row)] = row.by_seed(name)
    return {key for rivals in alike.values() for key in best(rivals)}


def _key(row: Row) -> str:
    return str(row.runs.run_id.iloc[0])


def _cells(row: Row, part: Section, bold: Mapping[str, set[str]]) -> list[Value]:
    done, asked = len(row.done), len(row.runs)
    parameters, speed = mean(row.values("parameters")), mean(row.values("images_per_second"))
    seconds = mean(row.values("device_seconds"))
    minutes = None if seconds is None else seconds / 60
    shares = (*RANKED, "balanced", "worst_class", "ece")
    return [
        _method(row, len(part.splits) > 1),
        *([Value(row.cell.backbone.name)] if len(part.backbones) > 1 else []),
        Value(str(done) if done == asked else f"{done} of {asked}", done),
        *(_share(row.values(name), _key(row) in bold.get(name, ())) for name in shares),
        _best(row),
        Value(number(parameters, 0), order(parameters)),
        Value(number(speed, 0), order(speed)),
        Value(short(minutes), order(minutes)),
    ]


def _method(row: Row, splits_differ: bool) -> Value:
    notes = [("code", row.label)] if row.label != name_of(row) else []
    notes += [("plain", row.variant)] if row.variant else []
    if splits_differ and len(row.done):
        notes.append(("failed", f"split {row.split or split_of(row.done.iloc[0])}"))
    notes += [(status, f"{seeds_of(seeds)} {status}") for status, _, seeds in row.not_done]
    tags = ("reconstruction",) if row.first("reconstruction") else ()
    return Value(name_of(row), href=row.first("paper"), tags=tags, notes=tuple(notes))


def _best(row: Row) -> Value:
    best = row.values("best_accuracy")
    gained = mean(row.optimism)
    text = spread(best) if gained is None else f"{spread(best)} ({gained:+.2f})"
    return Value(text, order(mean(best)))


def _share(values: Sequence[float], strong: bool) -> Value:
    return Value(spread(values), order(mean(values)), strong=strong)
