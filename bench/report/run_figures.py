"""Figures of one measured series: how it learned, which classes it knows, and what it takes them for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.ticker import MaxNLocator

from bench.report.figures import COLOURS, canvas, svg

#: More classes than this have no room for their names and numbers.
_NAMED = 20

_HEAT = LinearSegmentedColormap.from_list("heat", [to_rgba(COLOURS["many"], a) for a in (0.0, 1.0)])


def curves(seeds: Mapping[int, Sequence[Mapping[str, Any]]], alt: str) -> str | None:
    """Draw loss and test accuracy over the epochs, a line for each seed; None where nothing was trained."""
    panels = [("loss", "training loss", "medium"), ("accuracy", "test accuracy (%)", "many")]
    known = [panel for panel in panels if any(panel[0] in line for lines in seeds.values() for line in lines)]
    if not known:
        return None
    with canvas(4.6, 1.6 * len(known) + 0.4) as figure:
        axes = figure.subplots(len(known), 1, sharex=True, squeeze=False)[:, 0]
        for place, (name, label, colour) in zip(axes, known, strict=True):
            for lines in seeds.values():
                points = [(line["epoch"] + 1, line[name]) for line in lines if line.get(name) is not None]
                mark = "." if len(points) < 50 else ""
                if points:
                    place.plot(
                        *zip(*points, strict=True), mark + "-", color=COLOURS[colour], alpha=0.75, lw=1
                    )
            place.set_ylabel(label)
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return svg(figure, alt)


def classes(
    counts: Sequence[int],
    accuracies: Sequence[Sequence[float | None]],
    groups: Mapping[str, Sequence[int]],
    alt: str,
) -> str:
    """Draw each class's accuracy against its training images, mean and deviation over seeds."""
    table = np.array(accuracies, dtype=float)
    with canvas(4.6, 2.9) as figure:
        axes = figure.subplots()
        for name, members in groups.items():
            if not members:
                continue
            mean = np.nanmean(table[:, members], axis=0)
            spread = np.nanstd(table[:, members], axis=0, ddof=1) if len(table) > 1 else None
            places = np.asarray(counts)[members]
            axes.errorbar(places, mean, spread, fmt="o", ms=3.5, lw=0.6, color=COLOURS[name], label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(-3, 103)
        axes.set_xlabel("training images of the class")
        axes.set_ylabel("accuracy (%)")
        axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
        return svg(figure, alt)


def confusion(matrix: np.ndarray, names: Sequence[str], alt: str) -> str:
    """Draw the share of each true class's images (C, C) given to each class."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    named = len(names) <= _NAMED
    with canvas(4.2, 3.9) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap=_HEAT, vmin=0, vmax=1, interpolation="none")
        if named:
            for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
                share = f"{100 * shares[row, column]:.0f}"
                axes.text(column, row, share, ha="center", va="center", fontsize=6.5)
            short = [name[:12] for name in names]
            axes.set_xticks(range(len(names)), short, rotation=90)
            axes.set_yticks(range(len(names)), short)
        axes.tick_params(length=0, labelsize=7)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("given")
        axes.set_ylabel("true class")
        return svg(figure, alt)
