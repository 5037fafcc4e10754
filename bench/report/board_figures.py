"""Figures of the leaderboard: accuracy against cost, and measured against published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.leaderboard.check import Pair
from bench.leaderboard.lines import Line
from bench.metrics import RANKED
from bench.report.figures import COLOURS, Bars
from bench.report.plot import Figure, Panel, Scale

#: How a verdict is drawn: colour and shape, either of which tells them apart.
MARKS = {
    "reproduced": ("#17a07c", "●"),
    "close, n = 1": ("#17a07c", "◆"),
    "above": ("#3f8ecf", "▲"),
    "below": ("#d1495b", "▼"),
    "inconclusive": ("#858b94", "■"),
    "protocol differs": ("#e08b1f", "×"),
}

#: At most so many rows of bars are legible.
MOST_BARS = 18


def bars(lines: Sequence[Line]) -> list[Bars]:
    """Return the rows of bars of a league: the best measured, then the best published with shot groups."""
    ours = [line for line in lines if line.kind != "published"]
    theirs = [line for line in lines if line.kind == "published" and line.entry["many"] is not None]
    chosen = {line.key for line in [*ours, *theirs][:MOST_BARS]}
    return [
        (_name(line), {score: _values(line, score) for score in RANKED})
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
        points = [(line.entry[name] / scale, line.entry["accuracy"]) for line in there]
        costs = [point[0] for point in points]
        if there and max(costs) > 1.1 * min(costs):  # else there is nothing to choose between
            panels.append((label, points, there))
    if not panels:
        return None
    named = max(len(front(points)) for _, points, _ in panels)
    figure = Figure(260 * len(panels), 220 + 11 * named)
    for place, (label, points, there) in enumerate(panels):
        costs = [point[0] for point in points]
        across = Scale.around(costs, log=max(costs) > 10 * min(costs))
        spread = [line.entry["accuracy_std"] or 0 for line in there]
        reach = [gain + sign * s for (_, gain), s in zip(points, spread, strict=True) for sign in (-1, 1)]
        up = Scale.around(reach)
        panel = Panel(figure, 260 * place + 46, 10, 200, 150, across, up)
        panel.axes(label, "accuracy, last epoch (%)", most=4)
        _pareto(panel, points, there)
    return figure.svg(alt)


def agreement(lines: Iterable[Line], alt: str) -> str | None:
    """Draw each measured number against the published one it is judged by, marked by verdict."""
    pairs = [line.pair for line in lines if line.pair]
    if not pairs:
        return None
    scale = Scale.around([pair[name] for pair in pairs for name in ("published", "measured")])
    low, high = scale.low, scale.high
    figure = Figure(330, 288)
    panel = Panel(figure, 48, 8, 272, 240, scale, scale)
    band = [panel.at(low, low + 0.5), panel.at(high - 0.5, high), panel.at(high, high - 0.5)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in [*band, panel.at(low + 0.5, low)])
    figure.path(f"M{path}Z", COLOURS["accuracy"] + "4d")
    figure.line([panel.at(low, low), panel.at(high, high)])
    panel.axes("published accuracy (%)", "measured accuracy (%)")
    told = 18
    for verdict, (colour, mark) in MARKS.items():
        there: list[Pair] = [pair for pair in pairs if pair["verdict"] == verdict]
        for pair in there:
            panel.whisker(pair["published"], pair["measured"], 2 * (pair["s"] or 0), colour)
            x, y = panel.at(pair["published"], pair["measured"])
            figure.text(x, y + 3, mark, "middle", more=f' style="fill: {colour}"')
        if there:
            figure.text(56, told, mark, more=f' style="fill: {colour}"')
            figure.text(68, told, f"{verdict} ({len(there)})", size=8)
            told += 12
    return figure.svg(alt)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points (cost, gain) no other beats in both, the cheapest first."""
    found, best = [], float("-inf")
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[place][1] > best:
            found.append(place)
            best = points[place][1]
    return found


def _pareto(panel: Panel, points: Sequence[tuple[float, float]], lines: Sequence[Line]) -> None:
    figure, colour = panel.figure, COLOURS["accuracy"]
    for (cost, gain), line in zip(points, lines, strict=True):
        panel.whisker(cost, gain, line.entry["accuracy_std"] or 0, colour)
        figure.dot(*panel.at(cost, gain), 2, colour)
    unbeaten = front(points)
    steps: list[tuple[float, float]] = []
    for place in unbeaten:
        x, y = panel.at(*points[place])
        steps += [(x, steps[-1][1]), (x, y)] if steps else [(x, y)]
    figure.line(steps, COLOURS["many"], 1.1)
    for number, place in enumerate(unbeaten, start=1):  # names would cover each other there
        x, y = panel.at(*points[place])
        figure.dot(x, y, 5, COLOURS["many"])
        figure.text(x, y + 2.5, str(number), "middle", 7, ' style="fill: #ffffff"')
        below = panel.top + panel.height + 32 + 11 * number
        figure.text(panel.left - 30, below, f"{number}  {_name(lines[place])}", size=7.5)


def _values(line: Line, score: str) -> Sequence[float]:
    """Return a score over seeds; a published mean has no seeds to show."""
    if line.runs:
        return line.values(score)
    return [] if line.entry[score] is None else [line.entry[score]]


def _name(line: Line) -> str:
    name = str(line.entry["title"]) + (f" [{line.variant}]" if line.variant else "")
    return name if line.kind == "measured" else f"{name} ({line.kind})"
