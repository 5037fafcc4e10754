"""Figures of the leaderboard: accuracy against cost, and measured against published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from bench.report.figures import COLOURS, INK, Bars, canvas, svg
from bench.report.lines import SCORES, Line

#: How a verdict is drawn: colour and shape, either of which tells them apart.
MARKS = {
    "reproduced": ("#17a07c", "o"),
    "close, n = 1": ("#17a07c", "D"),
    "above": ("#3f8ecf", "^"),
    "below": ("#d1495b", "v"),
    "inconclusive": ("#858b94", "s"),
    "protocol differs": ("#e08b1f", "x"),
}

#: At most so many rows of bars are legible.
MOST_BARS = 18


def bars(lines: Sequence[Line]) -> list[Bars]:
    """Return the rows of bars of a league: the best measured, then the best published with shot groups."""
    ours = [line for line in lines if line.kind != "published"]
    theirs = [line for line in lines if line.kind == "published" and line.entry["many"] is not None]
    chosen = {line.key for line in [*ours, *theirs][:MOST_BARS]}
    return [
        (_name(line), {score: _values(line, score) for score in SCORES})
        for line in lines
        if line.key in chosen
    ]


def cost(lines: Iterable[Line], alt: str) -> str | None:
    """Draw accuracy against device minutes and parameters, with what no other line beats in both."""
    known = [line for line in lines if line.kind == "measured" and line.entry["accuracy"] is not None]
    panels = []
    for name, label, scale in (
        ("device_seconds", "device minutes of one run", 60),
        ("parameters", "parameters (millions)", 1e6),
    ):
        there = [line for line in known if line.entry[name]]
        costs = [line.entry[name] / scale for line in there]
        if there and max(costs) > 1.1 * min(costs):  # else there is nothing to choose between
            panels.append((label, list(zip(costs, there, strict=True))))
    if not panels:
        return None
    named = max(len(front(_places(points))) for _, points in panels)
    with canvas(3.6 * len(panels), 2.9 + 0.16 * named) as figure:
        for axes, (label, points) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _pareto(axes, points)
            costs = [cost for cost, _ in points]
            if max(costs) > 10 * min(costs):
                axes.set_xscale("log")
                axes.xaxis.set_minor_formatter(NullFormatter())
            else:
                axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.set_xlabel(label)
            axes.set_ylabel("accuracy, last epoch (%)")
        return svg(figure, alt)


def agreement(lines: Iterable[Line], alt: str) -> str | None:
    """Draw each measured number against the published one it is judged by, marked by verdict."""
    pairs = [line.pair for line in lines if line.pair and line.pair["d"] is not None]
    if not pairs:
        return None
    with canvas(4.6, 4.0) as figure:
        axes = figure.subplots()
        ends = [pair[name] for pair in pairs for name in ("published", "measured")]
        low, high = min(ends) - 2, max(ends) + 2
        axes.plot([low, high], [low, high], color=INK, linewidth=0.7)
        axes.fill_between(
            [low, high],
            [low - 0.5, high - 0.5],
            [low + 0.5, high + 0.5],
            color=COLOURS["accuracy"],
            alpha=0.3,
        )
        for verdict, (colour, mark) in MARKS.items():
            there = [pair for pair in pairs if pair["verdict"] == verdict]
            if there:
                xs, ys = [p["published"] for p in there], [p["measured"] for p in there]
                errors = [2 * (pair["s"] or 0) for pair in there]
                axes.errorbar(xs, ys, errors, fmt="none", ecolor=colour, elinewidth=0.8)
                axes.scatter(xs, ys, s=26, color=colour, marker=mark, label=f"{verdict} ({len(there)})")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("published accuracy (%)")
        axes.set_ylabel("measured accuracy (%)")
        axes.legend(frameon=False, loc="upper left", fontsize=8)
        return svg(figure, alt)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points (cost, gain) no other beats in both, the cheapest first."""
    found, best = [], -np.inf
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[place][1] > best:
            found.append(place)
            best = points[place][1]
    return found


def _pareto(axes: Axes, points: Sequence[tuple[float, Line]]) -> None:
    places = _places(points)
    for (cost, line), (_, gain) in zip(points, places, strict=True):
        axes.errorbar(cost, gain, line.entry["accuracy_std"] or 0, color=COLOURS["accuracy"], linewidth=0.7)
    axes.scatter(*_columns(places), s=14, color=COLOURS["accuracy"], zorder=2)
    unbeaten = front(places)
    best = [places[i] for i in unbeaten]
    axes.step(*_columns(best), where="post", color=COLOURS["many"], linewidth=1.1, zorder=1)
    axes.scatter(*_columns(best), s=70, color=COLOURS["many"], zorder=3)
    for number, place in enumerate(unbeaten, start=1):  # names would cover each other there
        axes.annotate(
            str(number), places[place], color="white", fontsize=7, ha="center", va="center", zorder=4
        )
        axes.plot([], [], " ", label=f"{number}  {_name(points[place][1])}")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False, handlelength=0, fontsize=7.5)
    axes.margins(x=0.1, y=0.15)


def _places(points: Sequence[tuple[float, Line]]) -> list[tuple[float, float]]:
    return [(cost, float(line.entry["accuracy"])) for cost, line in points]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _values(line: Line, score: str) -> Sequence[float]:
    """Return a score over seeds; a published mean has no seeds to show."""
    if line.seeds is not None:
        return list(line.by_seed(score).values())
    return [] if line.entry[score] is None else [line.entry[score]]


def _name(line: Line) -> str:
    name = str(line.entry["title"]) + (f" [{line.variant}]" if line.variant else "")
    return name if line.kind == "measured" else f"{name} ({line.kind})"
