"""The section of a recipe's page on equal effort: which method is best with each budget of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.cell import STANDARD
from bench.gridfile import Grid
from bench.leaderboard.cell_settings import listed
from bench.leaderboard.effort import Comparison, SearchedMethod, comparisons
from bench.leaderboard.entries import deviation, mean
from bench.metrics import METRICS
from bench.records import Results
from bench.report import text
from bench.report.plot import Figure, Panel, Scale
from bench.report.table import Column, Table, Value
from bench.search.record import SearchRecord

#: Colours of the lines of a figure, which also have names.
COLOURS = ("#3f8ecf", "#e08b1f", "#17a07c", "#b3589a", "#858b94", "#c0504d")

#: Points between the names of lines.
_NAME = 11.0

_FINAL = (
    "test score after the last epoch of the setting that won among the first k trials, mean ± "
    "standard deviation over seeds; bold: the best, and all whose difference to it may be noise"
)
_EXPECTED = "the expected best held-out score of k trials drawn from all that were measured"


def effort_sections(results: Results, grid: Grid) -> list[dict[str, Any]]:
    """Return the contents of the section for each comparison; empty for a recipe without a search."""
    search, found = grid.search, comparisons(results, grid)
    if search is None:
        return []
    return [
        {
            "title": f"Equal effort{_data(comparison) if len(found) > 1 else ''}",
            "facts": _facts(comparison, search),
            "finals": _finals(comparison, search.budgets),
            "chosen": _chosen(comparison),
            "expected": _expected(comparison),
            "trials": _trials(comparison),
            "figure": expected_figure(comparison),
            "file": f"effort_{number}.svg",
        }
        for number, comparison in enumerate(found, start=1)
    ]


def _data(comparison: Comparison) -> str:
    dataset, factor = comparison.dataset, f"imbalance factor {comparison.imbalance_factor:g}"
    tail = () if dataset.tail == STANDARD else (dataset.tail,)
    return f": {', '.join((dataset.name, *tail, factor, comparison.backbone))}"


def _facts(comparison: Comparison, search: SearchRecord) -> list[str]:
    most, held = max(search.budgets), search.held_out
    kept = f"{held} training images" if isinstance(held, int) else f"{100 * held:g} % of the training images"
    seeds = len(comparison.methods[0].record.trials[0].runs)
    facts = [
        f"{text.counted(most, 'trial')} of every method, the first with the recipe's own setting"
        + (f", each with {seeds} seeds" if seeds > 1 else ""),
        f"chosen by balanced accuracy on {kept} of each class, held out; no test image was looked at",
    ]
    keys = {k: comparison.best(k) for k in search.budgets}
    best = {k: ", ".join(one.key for one in comparison.methods if one.key in keys[k]) for k in keys}
    if any(best.values()):
        shown = "; ".join(f"k = {k} {names or text.NA}" for k, names in best.items())
        facts.append(f"best, with ties: {shown}")
    for one in comparison.methods:
        if one.failed:
            facts.append(f"{one.key}: {text.counted(one.failed, 'trial')} failed, counted as 0")
        if one.outdated:
            facts.append(f"{one.key}: its trials changed since; run the recipe again")
        if not one.ended:
            done = sum(outcome.ended for outcome in one.outcomes)
            facts.append(f"{one.key}: {done} of {len(one.outcomes)} trials have ended")
    return facts


def _method(one: SearchedMethod) -> Value:
    return Value.method(one.title, label=one.record.label, variant=one.variant)


def _finals(comparison: Comparison, budgets: Sequence[int]) -> Table:
    """Return the test accuracies of the winners: a row for each method, a column for each budget."""
    best = {budget: comparison.best(budget) for budget in budgets}

    def accuracy(one: SearchedMethod, budget: int) -> Value:
        known = list(one.accuracies(budget).values())
        value = Value.number(mean(known), deviation(known), bold=one.key in best[budget])
        wanted = one.record.seeds
        return value.noted(("missing", f"{len(known)} of {wanted} seeds")) if len(known) < wanted else value

    columns = [Column("method", numeric=False)]
    columns += [Column(f"k = {budget}", _FINAL) for budget in budgets]
    rows = [[_method(one), *(accuracy(one, budget) for budget in budgets)] for one in comparison.methods]
    return Table(columns, rows, f"Of what won with k trials, in percent: {METRICS[comparison.headline].head}")


def _chosen(comparison: Comparison) -> Table:
    """Return the settings that won."""
    columns = [
        Column("method", numeric=False),
        Column("k", "budget: how many settings were tried"),
        Column("draw", "which of them won; the first is the recipe's own"),
        Column("held-out", "balanced accuracy of that trial on held-out training images"),
        Column("setting", numeric=False),
    ]
    rows = [
        [
            _method(one),
            Value.number(won.budget, digits=0),
            Value.number(won.draw, digits=0),
            Value.number(one.outcomes[won.draw - 1].score),
            Value(setting(one.record.trials[won.draw - 1].setting)),
        ]
        for one in comparison.methods
        for won in one.record.winners
    ]
    return Table(columns, rows)


def _expected(comparison: Comparison) -> Table | None:
    """Return the expected best against k, a column for each method; None while unknown."""
    known = [one for one in comparison.methods if one.expected]
    if not known:
        return None
    columns = [Column("k"), *(Column(one.key, _EXPECTED) for one in known)]
    by_k = zip(*(one.expected for one in known), strict=True)
    rows = [
        [Value.number(k, digits=0), *(Value.number(value) for value in values)]
        for k, values in enumerate(by_k, start=1)
    ]
    return Table(columns, rows)


def _trials(comparison: Comparison) -> Table:
    """Return all trials."""
    columns = [Column("method", numeric=False), Column("draw"), Column("held-out")]
    columns.append(Column("setting", numeric=False))
    rows = []
    for one in comparison.methods:
        for draw, (trial, found) in enumerate(zip(one.record.trials, one.outcomes, strict=True), start=1):
            value = Value.number(found.score)
            if found.score is None and found.ended:
                value = value.noted(("failed", "failed"))
            rows.append([_method(one), Value.number(draw, digits=0), value, Value(setting(trial.setting))])
    return Table(columns, rows)


def setting(values: Mapping[str, Any]) -> str:
    """Write a setting as a recipe would, without the names of sections."""
    return listed({key.replace("protocol.", "").replace("params.", ""): values[key] for key in values})


def expected_figure(comparison: Comparison) -> str | None:
    """Draw the expected best against k, a line for each method with its name at the end."""
    known = [one for one in comparison.methods if len(one.expected) > 1]
    if not known:
        return None
    height = max(170, _NAME * len(known))
    figure = Figure(380 + 5.4 * max(len(one.key) for one in known), height + 56)
    across = Scale(1, max(len(one.expected) for one in known), log=True)
    up = Scale.around([value for one in known for value in one.expected])
    panel = Panel(figure, 48, 10, 300, height, across, up)
    panel.axes("k, trials of a method", "expected best, held out (%)")
    lines = [[panel.at(k, value) for k, value in enumerate(one.expected, start=1)] for one in known]
    downwards = sorted(range(len(known)), key=lambda i: lines[i][-1][1])
    heights = spaced([lines[i][-1][1] for i in downwards], _NAME, 8)
    for i, y in zip(downwards, heights, strict=True):
        colour, (x, end) = COLOURS[i % len(COLOURS)], lines[i][-1]
        figure.line(lines[i], colour, 1.4)
        figure.dot(x, end, 2, colour)
        figure.line([(x, end), (x + 9, y)], colour, 0.6)
        figure.text(x + 12, y + 3, known[i].key)
    return figure.svg("Expected best held-out score of each method against the number of trials")


def spaced(positions: Sequence[float], step: float, first: float) -> list[float]:
    """Move ascending positions as little as possible until they are a step apart, none before `first`."""
    found = list(positions)
    for i in range(len(found) - 2, -1, -1):
        found[i] = min(found[i], found[i + 1] - step)
    for i in range(len(found)):
        found[i] = max(found[i], found[i - 1] + step if i else first)
    return found
