"""Figures of the leaderboard: accuracy against cost, and measured against published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bench.leaderboard.check import Pair
from bench.leaderboard.lines import Line
from bench.metrics import RANKED
from bench.report.figures import COLOURS, Row, accuracies
from bench.report.plot import Figure, Panel, Scale

#: How a verdict is drawn: colour and shape, either of which tells them apart.
MARKS = {
    "protocol differs": ("#9aa1a9", "×"),
    "reproduced": ("#17a07c", "●"),
    "close, n = 1": ("#17a07c", "◆"),
    "above": ("#3f8ecf", "▲"),
    "below": ("#d1495b", "▼"),
    "inconclusive": ("#858b94", "■"),
}

#: At most so many rows of a figure are legible, and so many lines in one panel.
MOST_ROWS, MOST_LINES = 18, 5

#: More classes than this are drawn in so many groups.
_GROUPS = 15

#: Of lines in one panel, told apart by colour-blind readers; the last is of the lowest.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#858b94")


def shots(lines: Sequence[Line], alt: str) -> str | None:
    """Draw the best measured of a league with their controls, by shot group, and what was published."""
    ours = [line for line in lines if line.kind == "measured"]
    named = [pair for line in ours for pair in ((_name(line), line), *_controls(line))][:MOST_ROWS]
    rows = [
        Row(
            name,
            {score: line.by_seed(score) for score in RANKED},
            {"accuracy": line.reported} if line.reported is not None else {},
        )
        for name, line in named
    ]
    return accuracies([("", rows)], alt) if rows else None


def _controls(line: Line) -> list[tuple[str, Line]]:
    return [(f"↳ {name.replace('_', ' ')}", control) for name, control in line.controls.items()]


def classes(lines: Sequence[Line], alt: str) -> str | None:
    """Draw accuracy by the classes' training images, of the best measured and of the lowest."""
    ours = [(line, found) for line in lines if (found := _by_class(line)) is not None]
    chosen = ours if len(ours) <= MOST_LINES else [*ours[: MOST_LINES - 1], ours[-1]]
    if not chosen:
        return None
    counts = np.concatenate([found[0] for _, found in chosen])
    figure = Figure(330, 210 + 11 * len(chosen))
    across, up = Scale.around([*np.maximum(counts, 0.5)], log=True), Scale(-3, 103)
    panel = Panel(figure, 48, 8, 272, 165, across, up)
    panel.axes("training images of the class", "accuracy (%)")
    for number, (line, (images, shares)) in enumerate(chosen):
        colour = _LINES[number] if len(ours) <= MOST_LINES or number < MOST_LINES - 1 else _LINES[-1]
        path = [panel.at(x, y) for x, y in zip(images, shares, strict=True)]
        figure.line(path, colour, 1.2)
        for x, y in path:
            figure.dot(x, y, 1.6, colour)
        below = 215 + 11 * number
        figure.line([(48, below - 3), (62, below - 3)], colour, 2)
        figure.text(67, below, _name(line), size=8)
    return figure.svg(alt)


def _by_class(line: Line) -> tuple[list[float], list[float]] | None:
    """Return training images and accuracy of classes, or of groups of them, the most frequent first."""
    shares = [run.record["metrics"].get("per_class") for run in line.runs]
    counts = line.runs[0].record["data"].get("class_counts") if line.runs else None
    if counts is None or None in shares or not shares:
        return None
    table = np.array(shares, dtype=float)
    order = np.argsort(-np.asarray(counts), kind="stable")
    images, found = list[float](), list[float]()
    for group in np.array_split(order, min(len(order), _GROUPS)):
        known = table[:, group][~np.isnan(table[:, group])]
        if len(known):
            images.append(float(np.exp(np.log(np.maximum(np.asarray(counts)[group], 0.5)).mean())))
            found.append(float(known.mean()))
    return (images, found) if found else None


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
    """Draw each measured number against the published one it is held against, marked by verdict.

    Those of another protocol are grey: their distance from the line says nothing of the method.
    """
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


def _name(line: Line) -> str:
    name = str(line.entry["title"]) + (f" [{line.variant}]" if line.variant else "")
    return name if line.kind == "measured" else f"{name} ({line.kind})"
