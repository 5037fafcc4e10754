"""Figures of accuracies and class counts: the same bytes for the same numbers, on light and dark ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.leaderboard.entries import deviation, mean
from bench.report.plot import INK, Figure, Panel, Scale
from bench.report.text import counted

#: Of the shot groups everywhere: told apart by colour-blind readers, legible on white and on black.
COLOURS = {"accuracy": "#858b94", "many": "#3f8ecf", "medium": "#17a07c", "few": "#e08b1f"}

#: One row of bars: what it is called, and the values over seeds of each metric.
Bars = tuple[str, Mapping[str, Sequence[float]]]

#: Points: of a row of bars, of 100 percent, from one panel to the next, and of a letter.
_ROW, _FULL, _PANEL, _LETTER = 16.0, 78.0, 118.0, 4.9

#: So much of a row's name is shown.
_NAME = 34


def class_counts(counts: Sequence[int], groups: Mapping[str, Sequence[int]], alt: str) -> str:
    """Draw the training images per class, most first, coloured by shot group."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    figure = Figure(460, 165)
    panel = Panel(figure, 50, 20, 400, 105, Scale(0, len(counts)), Scale(0.5, max(counts) * 1.5, log=True))
    told = 450.0
    for name, members in reversed(list(groups.items())):
        ranks = np.flatnonzero(np.isin(order, members))
        if len(ranks):
            figure.path(_steps(panel, ranks, np.asarray(counts)[order]), COLOURS[name])
            label = f"{name}: {counted(len(ranks), 'class')}"
            told -= _LETTER * len(label)
            figure.text(told, 11, label)
            figure.rect(told - 14, 4, 10, 7, COLOURS[name])
            told -= 24
    panel.axes("classes, by their number of training images", "training images", lambda v: f"{v:,.0f}")
    return figure.svg(alt)


def _steps(panel: Panel, ranks: np.ndarray, counts: np.ndarray) -> str:
    x, floor = panel.at(float(ranks[0]), panel.up.low)
    step, path, y = panel.width / panel.across.high, [f"M{x:.1f} {floor:.1f}"], floor
    for rank in ranks:
        _, top = panel.at(0, max(float(counts[rank]), panel.up.low))
        if round(top - y, 1):
            path.append(f"V{top:.1f}")
            y = top
        path.append(f"H{x + step * (rank - ranks[0] + 1):.1f}")
    return "".join([*path, f"V{floor:.1f}Z"])


def accuracies(sections: Sequence[tuple[str, Sequence[Bars]]], alt: str) -> str:
    """Draw accuracy and shot accuracies of methods: a row of panels for each section.

    A bar is the mean over seeds, its whisker the standard deviation; a metric that no method of any
    section has gets no panel.
    """
    shown = [m for m in COLOURS if any(row[1].get(m) for _, rows in sections for row in rows)]
    longest = max(min(len(row[0]), _NAME) for _, rows in sections for row in rows)
    left = _LETTER * longest + 10
    named = 14 if len(sections) > 1 else 0
    heights = [named + 34 + _ROW * len(rows) for _, rows in sections]
    figure, top = Figure(left + _PANEL * len(shown) + 8, sum(heights)), 0.0
    for (title, rows), height in zip(sections, heights, strict=True):
        if named:
            figure.text(left, top + 11, title, more=' font-weight="bold"')
        first = top + named + 16
        for place, (name, _) in enumerate(rows):
            short = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
            figure.text(left - 5, first + _ROW * place + 11, short, "end")
        for number, metric in enumerate(shown):
            _bars(figure, left + _PANEL * number, first, metric, [row[1].get(metric, ()) for row in rows])
        top += height
    return figure.svg(alt)


def _bars(figure: Figure, left: float, top: float, metric: str, rows: Sequence[Sequence[float]]) -> None:
    figure.text(left, top - 5, "all classes" if metric == "accuracy" else metric)
    bottom = top + _ROW * len(rows)
    for place, values in enumerate(rows):
        middle, value, spread = top + _ROW * (place + 0.5), mean(values), deviation(values)
        if value is None:
            figure.text(left + 2, middle + 3, "n/a", size=8)
            continue
        end = left + _FULL * value / 100
        figure.rect(left, middle - 5.5, end - left, 11, COLOURS[metric])
        reach = _FULL * (spread or 0) / 100
        if reach:
            figure.line([(end - reach, middle), (end + reach, middle)], width=0.8)
        figure.text(end + reach + 2, middle + 3, f"{value:.1f}", size=8)
    figure.line([(left, top), (left, bottom), (left + _FULL, bottom)])
    for percent in (0, 50, 100):
        figure.text(left + _FULL * percent / 100, bottom + 10, str(percent), "middle", 8)


def standalone(svg: str) -> str:
    """Make a file of a figure that is legible wherever it is shown: dark ink on a white ground."""
    end = svg.index(">", svg.index("<svg")) + 1
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return (svg[:end] + ground + svg[end:]).replace(INK, "#1f2328")
