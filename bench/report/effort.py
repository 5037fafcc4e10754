"""The section of a recipe's page that answers: which method is best at equal effort?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.leaderboard.board import written
from bench.leaderboard.effort import Effort, Place, places
from bench.leaderboard.entries import deviation, mean
from bench.metrics import METRICS
from bench.records import Grid, Results
from bench.report import text
from bench.report.page import Column, Table, Value
from bench.report.plot import Figure, Panel, Scale

#: Of the lines of a figure, which also have their names beside them.
COLOURS = ("#3f8ecf", "#e08b1f", "#17a07c", "#b3589a", "#858b94", "#c0504d")

_FINAL = "test score after the last epoch of the setting that won among the first k trials, mean ± "
_FINAL += "standard deviation over seeds; bold: the best, and what noise does not tell from it"
#: Points between the names of lines.
_NAME = 11.0

_EXPECTED = "the expected best held-out score of k trials drawn from all that were measured"


def effort_sections(results: Results, grid: Grid) -> list[dict[str, Any]]:
    """Return what the section shows of each place; nothing for a recipe without a search."""
    if grid.search is None:
        return []
    budgets = grid.search.budgets
    found = places(results, grid)
    return [
        {
            "title": f"Equal effort{_where(place) if len(found) > 1 else ''}",
            "facts": _facts(place, grid),
            "finals": _finals(place, budgets),
            "chosen": _chosen(place),
            "expected": _expected(place),
            "trials": _trials(place),
            "figure": expected_figure(place),
            "file": f"effort_{number}.svg",
        }
        for number, place in enumerate(found, start=1)
    ]


def _where(place: Place) -> str:
    return f": {place.dataset}, imbalance factor {place.imbalance_factor:g}, {place.backbone}"


def _facts(place: Place, grid: Grid) -> list[str]:
    assert grid.search is not None
    most, held = max(grid.search.budgets), grid.search.held_out
    kept = f"{held} training images" if isinstance(held, int) else f"{100 * held:g} % of the training images"
    seeds = len(place.efforts[0].record.trials[0].runs)
    told = [
        f"{text.counted(most, 'trial')} of every method, the first with the recipe's own setting"
        + (f", each with {seeds} seeds" if seeds > 1 else ""),
        f"chosen by balanced accuracy on {kept} of each class, held out; no test image was looked at",
    ]
    strong = [(k, place.strong(k)) for k in grid.search.budgets]
    best = [(k, [one.key for one in place.efforts if one.key in keys]) for k, keys in strong]
    if any(names for _, names in best):
        shown = "; ".join(f"k = {k} {', '.join(names) or text.NA}" for k, names in best)
        told.append(f"best, as far as noise lets it be told: {shown}")
    for one in place.efforts:
        if one.failed:
            told.append(f"{one.key}: {text.counted(one.failed, 'trial')} failed, counted as 0")
        if one.outdated:
            told.append(f"{one.key}: its trials changed since; run the recipe again")
        if not one.ended:
            done = sum(outcome.ended for outcome in one.outcomes)
            told.append(f"{one.key}: {done} of {len(one.outcomes)} trials have ended")
    return told


def _method(one: Effort) -> Value:
    notes = [("code", one.record.label)] if one.record.label != one.title else []
    return Value(one.title, notes=(*notes, *([("plain", one.variant)] if one.variant else [])))


def _finals(place: Place, budgets: Sequence[int]) -> Table:
    """Return the table of what won: a row for each method, a column for each budget."""
    strong = {budget: place.strong(budget) for budget in budgets}

    def score(one: Effort, budget: int) -> Value:
        scores = list(one.scores(budget).values())
        wanted = one.record.seeds
        missing = [("missing", f"{len(scores)} of {wanted} seeds")] if len(scores) < wanted else []
        return Value(
            text.around(mean(scores), deviation(scores)),
            text.order(mean(scores)),
            strong=one.key in strong[budget],
            notes=tuple(missing),
        )

    columns = [Column("method", numeric=False)]
    columns += [Column(f"k = {budget}", _FINAL) for budget in budgets]
    rows = [[_method(one), *(score(one, budget) for budget in budgets)] for one in place.efforts]
    return Table(columns, rows, f"Of what won with k trials, in percent: {METRICS[place.headline].head}")


def _chosen(place: Place) -> Table:
    """Return the table of the settings that won."""
    columns = [
        Column("method", numeric=False),
        Column("k", "budget: how many settings were tried"),
        Column("draw", "which of them won; the first is the recipe's own"),
        Column("held-out", "balanced accuracy of that trial on held-out training images"),
        Column("setting", numeric=False),
    ]
    rows = []
    for one in place.efforts:
        for won in one.record.winners:
            trial, now = one.record.trials[won.draw - 1], one.outcomes[won.draw - 1].score
            numbers = (Value(str(won.budget), won.budget), Value(str(won.draw), won.draw))
            score = Value(text.number(now), text.order(now))
            rows.append([_method(one), *numbers, score, Value(setting(trial.setting))])
    return Table(columns, rows)


def _expected(place: Place) -> Table | None:
    """Return the expected best against k, a column for each method; None while nothing is known."""
    known = [one for one in place.efforts if one.expected]
    if not known:
        return None
    columns = [Column("k"), *(Column(one.key, _EXPECTED) for one in known)]
    rows = [
        [Value(str(k + 1), k + 1), *(Value(text.number(one.expected[k]), one.expected[k]) for one in known)]
        for k in range(len(known[0].expected))
    ]
    return Table(columns, rows)


def _trials(place: Place) -> Table:
    """Return the table of all trials."""
    columns = [Column("method", numeric=False), Column("draw"), Column("held-out")]
    columns.append(Column("setting", numeric=False))
    rows = []
    for one in place.efforts:
        for draw, (trial, found) in enumerate(zip(one.record.trials, one.outcomes, strict=True), start=1):
            score = Value(text.number(found.score), text.order(found.score))
            if found.score is None:
                score = Value(text.NA, notes=(("failed", "failed"),) if found.ended else ())
            rows.append([_method(one), Value(str(draw), draw), score, Value(setting(trial.setting))])
    return Table(columns, rows)


def setting(values: Mapping[str, Any]) -> str:
    """Write a setting as a recipe would, without the sections that its keys stand in."""
    short = {key.replace("protocol.", "").replace("params.", ""): value for key, value in values.items()}
    return ", ".join(f"{key} {written(value)}" for key, value in short.items())


def expected_figure(place: Place) -> str | None:
    """Draw the expected best against k, a line for each method with its name at the end."""
    known = [one for one in place.efforts if len(one.expected) > 1]
    if not known:
        return None
    values = [value for one in known for value in one.expected]
    height = max(170, _NAME * len(known))
    figure = Figure(380 + 5.4 * max(len(one.key) for one in known), height + 56)
    across = Scale(1, max(len(one.expected) for one in known), log=True)
    panel = Panel(figure, 48, 10, 300, height, across, Scale.around(values))
    panel.axes("k, trials of a method", "expected best, held out (%)")
    lines = [[panel.at(k, value) for k, value in enumerate(one.expected, start=1)] for one in known]
    order = sorted(range(len(known)), key=lambda number: lines[number][-1][1])
    names = apart([lines[number][-1][1] for number in order], _NAME, 8)
    for number, y in zip(order, names, strict=True):
        colour, end = COLOURS[number % len(COLOURS)], lines[number][-1]
        figure.line(lines[number], colour, 1.4)
        figure.dot(*end, 2, colour)
        figure.line([end, (end[0] + 9, y)], colour, 0.6)
        figure.text(end[0] + 12, y + 3, known[number].key)
    return figure.svg("Expected best held-out score of each method against the number of trials")


def apart(places: Sequence[float], step: float, first: float) -> list[float]:
    """Move rising places as little as may be until they are a step apart, none before the first."""
    found = list(places)
    for place in range(len(found) - 2, -1, -1):
        found[place] = min(found[place], found[place + 1] - step)
    for place in range(len(found)):
        found[place] = max(found[place], found[place - 1] + step if place else first)
    return found
