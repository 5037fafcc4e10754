"""Figures of accuracies and class counts, legible on light and dark ground; same numbers, same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.leaderboard.compare import FEWEST_SEEDS, half_width, noise
from bench.leaderboard.entries import mean
from bench.leaderboard.lines import Line, Seeds
from bench.metrics import RANKED
from bench.report.plot import INK, Figure, Panel, Scale
from bench.report.text import counted, shortened

#: Colours of the shot groups in all figures, safe for colour-blind readers, legible on white and on black.
COLOURS = {"accuracy": "#858b94", "many": "#3f8ecf", "medium": "#17a07c", "few": "#e08b1f"}

#: Points: height of a row, widths of a panel, of the numbers beside it, and of a letter.
_ROW, _FULL, _NUMBERS, _LETTER = 15.0, 96.0, 34.0, 4.9

#: Most letters of a row's name.
_NAME = 34


@dataclass(frozen=True)
class FigureRow:
    """A method in a figure: for each metric its values by seed, and the published value."""

    name: str
    seeds: Mapping[str, Seeds]
    published: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, line: Line) -> FigureRow:
        """Return the row of a line under a name."""
        published = {} if line.reported is None else {"accuracy": line.reported}
        return cls(name, {metric: line.by_seed(metric) for metric in RANKED}, published)


def class_counts(counts: Sequence[int], groups: Mapping[str, Sequence[int]], alt: str) -> str:
    """Draw the training images per class, most first, coloured by shot group."""
    sorted_classes = np.argsort(-np.asarray(counts), kind="stable")
    figure = Figure(460, 165)
    panel = Panel(figure, 50, 20, 400, 105, Scale(0, len(counts)), Scale(0.5, max(counts) * 1.5, log=True))
    x = 450.0
    for name, members in reversed(list(groups.items())):
        ranks = np.flatnonzero(np.isin(sorted_classes, members))
        if len(ranks):
            figure.path(_steps(panel, ranks, np.asarray(counts)[sorted_classes]), COLOURS[name])
            label = f"{name}: {counted(len(ranks), 'class')}"
            x -= _LETTER * len(label)
            figure.text(x, 11, label)
            figure.rect(x - 14, 4, 10, 7, COLOURS[name])
            x -= 24
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


def class_panel(figure: Figure, top: float, height: float, counts: Sequence[int] | np.ndarray) -> Panel:
    """Draw the axes of accuracy against training images per class; no images are drawn as 0.5."""
    across = Scale.around([max(float(count), 0.5) for count in counts], log=True)
    panel = Panel(figure, 48, top, 272, height, across, Scale(-3, 103))
    panel.axes("training images of the class", "accuracy (%)")
    return panel


def accuracies(sections: Sequence[tuple[str, Sequence[FigureRow]]], alt: str) -> str:
    """Draw accuracy and shot accuracies of methods: a row of panels for each section.

    A small dot is a seed, thin lines join equal seeds; a large dot is the mean over seeds, its whisker the
    95 % interval by the variance that the rows share, for three seeds or more; a diamond is the published
    value. A metric that no method has gets no panel.
    """
    shown = [m for m in COLOURS if any(row.seeds.get(m) for _, rows in sections for row in rows)]
    longest = max(min(len(row.name), _NAME) for _, rows in sections for row in rows)
    left = _LETTER * longest + 10
    named = 14 if len(sections) > 1 else 0
    heights = [named + 36 + _ROW * len(rows) for _, rows in sections]
    figure, top = Figure(left + (_FULL + _NUMBERS + 12) * len(shown), sum(heights)), 0.0
    for (title, rows), height in zip(sections, heights, strict=True):
        if named:
            figure.text(left, top + 11, title, bold=True)
        first = top + named + 16
        for i, row in enumerate(rows):
            figure.text(left - 5, first + _ROW * i + 11, shortened(row.name, _NAME), "end")
        for number, metric in enumerate(shown):
            _dots(figure, left + (_FULL + _NUMBERS + 12) * number, first, metric, rows)
        top += height
    return figure.svg(alt)


def _dots(figure: Figure, left: float, top: float, metric: str, rows: Sequence[FigureRow]) -> None:
    """Draw one metric of all rows, on a scale of its known values."""
    figure.text(left, top - 5, "all classes" if metric == "accuracy" else metric)
    seeds = [row.seeds.get(metric, {}) for row in rows]
    shared = noise({str(i): own for i, own in enumerate(seeds)})
    known = [value for own in seeds for value in own.values()]
    known += [row.published[metric] for row in rows if metric in row.published]
    if not known:
        return
    bottom = top + _ROW * len(rows)
    panel = Panel(
        figure, left, top, _FULL, bottom - top, Scale.around(known, margin=0.08), Scale(0, len(rows))
    )
    for value in panel.across.ticks(4):
        x, _ = panel.at(value, 0)
        figure.line([(x, top), (x, bottom)], opacity=0.2)
        figure.text(x, bottom + 10, f"{value:g}", "middle", 8)
    heights = [top + _ROW * (i + 0.5) for i in range(len(rows))]
    for seed in sorted({seed for own in seeds for seed in own}):
        path = [(panel.at(own[seed], 0)[0], y) for own, y in zip(seeds, heights, strict=True) if seed in own]
        figure.line(path, COLOURS[metric], 0.5, 0.4)
        figure.points(path, 2.2, COLOURS[metric])
    for row, own, y in zip(rows, seeds, heights, strict=True):
        if metric in row.published:
            figure.text(panel.at(row.published[metric], 0)[0], y + 3, "◇", "middle")
        middle = mean(list(own.values()))
        figure.text(left + _FULL + 4, y + 3, "n/a" if middle is None else f"{middle:.1f}", size=8)
        if middle is not None:
            x, half = panel.at(middle, 0)[0], 0.0
            if len(own) >= FEWEST_SEEDS:
                half = _FULL * half_width(len(own), shared) / (panel.across.high - panel.across.low)
                figure.line([(max(x - half, left), y), (min(x + half, left + _FULL), y)], width=1)
            figure.dot(x, y, 3, COLOURS[metric])


def standalone(svg: str) -> str:
    """Make a figure legible outside of a page: dark ink on a white ground."""
    end = svg.index(">", svg.index("<svg")) + 1
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return (svg[:end] + ground + svg[end:]).replace(INK, "#1f2328")
