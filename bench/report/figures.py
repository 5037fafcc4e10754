"""Figures as SVG text: the same bytes for the same numbers, readable on light and dark ground."""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.text import counted

#: Of the shot groups everywhere: told apart by colour-blind readers, legible on white and on black.
COLOURS = {"accuracy": "#858b94", "many": "#3f8ecf", "medium": "#17a07c", "few": "#e08b1f"}

#: Stands for the colour of the text around a figure until its SVG is finished.
INK = "#010203"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "longtail-bench",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a label is text, whatever it holds
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
}

#: One row of bars: what it is called, and the values over seeds of each metric.
Bars = tuple[str, Mapping[str, Sequence[float]]]


def class_counts(counts: Sequence[int], groups: Mapping[str, Sequence[int]], alt: str) -> str:
    """Draw the training images per class, most first, coloured by shot group."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    with canvas(6.4, 2.1) as figure:
        axes = figure.subplots()
        for name, members in groups.items():
            ranks = np.flatnonzero(np.isin(order, members))
            if len(ranks):
                heights, edges = np.asarray(counts)[order][ranks], np.append(ranks, ranks[-1] + 1)
                label = f"{name}: {counted(len(ranks), 'class')}"
                axes.stairs(heights, edges, baseline=0.5, fill=True, color=COLOURS[name], label=label)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3, frameon=False)
        axes.set_yscale("log")
        axes.set_ylim(0.5, max(counts) * 1.5)
        axes.set_xlim(0, len(counts))
        axes.set_xlabel("classes, by their number of training images")
        axes.set_ylabel("training images")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        return svg(figure, alt)


def accuracies(sections: Sequence[tuple[str, Sequence[Bars]]], alt: str) -> str:
    """Draw accuracy and shot accuracies of methods: a row of panels for each section.

    A bar is the mean over seeds, its whisker the standard deviation; a metric that no method of any
    section has gets no panel.
    """
    shown = [m for m in COLOURS if any(row[1].get(m) for _, rows in sections for row in rows)]
    heights = [len(rows) for _, rows in sections]
    with canvas(1.6 + 1.7 * len(shown), sum(0.24 * height + 0.75 for height in heights)) as figure:
        grid = figure.subplots(len(sections), len(shown), squeeze=False, height_ratios=heights)
        for (title, rows), panels in zip(sections, grid, strict=True):
            for metric, axes in zip(shown, panels, strict=True):
                _bars(axes, [row[1].get(metric, ()) for row in rows], COLOURS[metric])
                axes.set_title("all classes" if metric == "accuracy" else metric, fontsize=9, loc="left")
                axes.set_yticks([])
            labels = [name if len(name) <= 34 else name[:33] + "…" for name, _ in rows]
            panels[0].set_yticks(range(len(rows)), labels)
            panels[0].tick_params(axis="y", length=0)
            if len(sections) > 1:
                panels[0].set_title(f"{title}\nall classes", fontsize=9, loc="left")
        return svg(figure, alt)


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure of a size in inches, in the style of all of them."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _bars(axes: Axes, rows: Sequence[Sequence[float]], colour: str) -> None:
    for place, values in enumerate(rows):
        if not values:
            axes.text(1, place, "n/a", va="center", fontsize=8)
            continue
        mean = statistics.fmean(values)
        axes.barh(place, mean, height=0.7, color=colour)
        end = mean
        if len(values) > 1:
            deviation = statistics.stdev(values)
            axes.errorbar(mean, place, xerr=deviation, color=INK, linewidth=0.8, capsize=1.5)
            end += deviation
        axes.text(end + 1.5, place, f"{mean:.1f}", va="center", fontsize=8)
    axes.set_xlim(0, 118)
    axes.set_xticks([0, 50, 100])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def svg(figure: Figure, alt: str) -> str:
    """Return a figure as text, `alt` in words for those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Without a fixed size it takes the width of its place, up to its own.
    width = re.search(r'width="([\d.]+)pt"', text)
    assert width is not None
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # A hundredth of a point is more than anyone sees; text stands outside of tags.
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    opening = f'<svg role="img" aria-label="{escape(alt)}" style="max-width: {width[1]}pt"'
    return text.replace("<svg", opening, 1).strip() + "\n"


def standalone(svg: str) -> str:
    """Make a file of a figure that is legible wherever it is shown: dark ink on a white ground."""
    end = svg.index(">", svg.index("<svg")) + 1
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return (svg[:end] + ground + svg[end:]).replace("currentColor", "#1f2328")
