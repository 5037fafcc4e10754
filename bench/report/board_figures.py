"""Figures of the leaderboard: shot groups, classes, cost, and measured against published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bench.leaderboard.check import Pair
from bench.leaderboard.lines import Line, control_name
from bench.report.figures import COLOURS, FigureRow, accuracies, class_panel
from bench.report.plot import Figure, Panel, Scale

#: Colour and mark of each verdict; either distinguishes them.
MARKS = {
    "protocol differs": ("#9aa1a9", "×"),
    "reproduced": ("#17a07c", "●"),
    "close, n = 1": ("#17a07c", "◆"),
    "above": ("#3f8ecf", "▲"),
    "below": ("#d1495b", "▼"),
    "inconclusive": ("#858b94", "■"),
}

#: Most rows of a figure and lines of a panel that are legible.
MOST_ROWS, MOST_LINES = 18, 5

#: Most points of a line; more classes are averaged in this many groups.
_GROUPS = 15

#: Colours of lines in one panel, safe for colour-blind readers; the last is for the lowest.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#858b94")


def shots(lines: Sequence[Line], alt: str) -> str | None:
    """Draw the best measured of a league with their controls and published numbers, by shot group."""
    named = list[tuple[str, Line]]()
    for line in lines:
        if line.kind == "measured":
            named.append((_label(line), line))
            named += [(control_name(name), control) for name, control in line.controls.items()]
    rows = [FigureRow.of(*row) for row in named[:MOST_ROWS]]
    return accuracies([("", rows)], alt) if rows else None


def classes(lines: Sequence[Line], alt: str) -> str | None:
    """Draw accuracy by training images of the classes, for the best measured and the lowest."""
    ours = [(line, found) for line in lines if (found := _by_class(line)) is not None]
    chosen = ours if len(ours) <= MOST_LINES else [*ours[: MOST_LINES - 1], ours[-1]]
    if not chosen:
        return None
    counts = np.concatenate([found[0] for _, found in chosen])
    figure = Figure(330, 210 + 11 * len(chosen))
    panel = class_panel(figure, 8, 165, counts)
    for i, (line, points) in enumerate(chosen):
        path = [panel.at(x, y) for x, y in zip(*points, strict=True)]
        figure.line(path, _LINES[i], 1.2)
        for x, y in path:
            figure.dot(x, y, 1.6, _LINES[i])
        below = 215 + 11 * i
        figure.line([(48, below - 3), (62, below - 3)], _LINES[i], 2)
        figure.text(67, below, _label(line), size=8)
    return figure.svg(alt)


def _by_class(line: Line) -> tuple[list[float], list[float]] | None:
    """Return training images and accuracy of classes, or of groups of classes, most frequent first."""
    accuracies = [run.record["metrics"].get("per_class") for run in line.runs]
    counts = line.runs[0].record["data"].get("class_counts") if line.runs else None
    if counts is None or None in accuracies:
        return None
    table = np.array(accuracies, dtype=float)
    frequent_first = np.argsort(-np.asarray(counts), kind="stable")
    images, found = list[float](), list[float]()
    for group in np.array_split(frequent_first, min(len(counts), _GROUPS)):
        known = table[:, group][~np.isnan(table[:, group])]
        if len(known):
            images.append(float(np.exp(np.log(np.maximum(np.asarray(counts)[group], 0.5)).mean())))
            found.append(float(known.mean()))
    return (images, found) if found else None


def cost(lines: Iterable[Line], alt: str) -> str | None:
    """Draw accuracy against device minutes and parameters, with the Pareto front."""
    known = [line for line in lines if line.kind == "measured" and line.entry["accuracy"] is not None]
    panels = []
    for name, label, scale in (
        ("device_seconds", "device minutes of one run", 60),
        ("parameters", "parameters (millions)", 1e6),
    ):
        shown = [line for line in known if line.entry[name]]
        points = [(line.entry[name] / scale, line.entry["accuracy"]) for line in shown]
        costs = [cost for cost, _ in points]
        if shown and max(costs) > 1.1 * min(costs):  # else there is no choice
            panels.append((label, points, shown))
    if not panels:
        return None
    named = max(len(front(points)) for _, points, _ in panels)
    figure = Figure(260 * len(panels), 220 + 11 * named)
    for i, (label, points, shown) in enumerate(panels):
        costs = [cost for cost, _ in points]
        across = Scale.around(costs, log=max(costs) > 10 * min(costs))
        spread = [line.entry["accuracy_std"] or 0 for line in shown]
        ends = [gain + sign * s for (_, gain), s in zip(points, spread, strict=True) for sign in (-1, 1)]
        panel = Panel(figure, 260 * i + 46, 10, 200, 150, across, Scale.around(ends))
        panel.axes(label, "accuracy, last epoch (%)", most=4)
        _pareto(panel, points, shown)
    return figure.svg(alt)


def agreement(lines: Iterable[Line], alt: str) -> str | None:
    """Draw each measured number against its published one, marked by verdict; other protocols are grey."""
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
    legend = 18
    for verdict, (colour, mark) in MARKS.items():
        marked: list[Pair] = [pair for pair in pairs if pair["verdict"] == verdict]
        for pair in marked:
            panel.whisker(pair["published"], pair["measured"], 2 * (pair["s"] or 0), colour)
            x, y = panel.at(pair["published"], pair["measured"])
            figure.text(x, y + 3, mark, "middle", colour=colour)
        if marked:
            figure.text(56, legend, mark, colour=colour)
            figure.text(68, legend, f"{verdict} ({len(marked)})", size=8)
            legend += 12
    return figure.svg(alt)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto front of points (cost, gain), cheapest first."""
    found, best = [], float("-inf")
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            found.append(i)
            best = points[i][1]
    return found


def _pareto(panel: Panel, points: Sequence[tuple[float, float]], lines: Sequence[Line]) -> None:
    figure, colour = panel.figure, COLOURS["accuracy"]
    for (cost, gain), line in zip(points, lines, strict=True):
        panel.whisker(cost, gain, line.entry["accuracy_std"] or 0, colour)
        figure.dot(*panel.at(cost, gain), 2, colour)
    best = front(points)
    steps: list[tuple[float, float]] = []
    for i in best:
        x, y = panel.at(*points[i])
        steps += [(x, steps[-1][1]), (x, y)] if steps else [(x, y)]
    figure.line(steps, COLOURS["many"], 1.1)
    for number, i in enumerate(best, start=1):  # names there would overlap
        x, y = panel.at(*points[i])
        figure.dot(x, y, 5, COLOURS["many"])
        figure.text(x, y + 2.5, str(number), "middle", 7, colour="#ffffff")
        below = panel.top + panel.height + 32 + 11 * number
        figure.text(panel.left - 30, below, f"{number}  {_label(lines[i])}", size=7.5)


def _label(line: Line) -> str:
    return line.title if line.kind == "measured" else f"{line.title} ({line.kind})"
