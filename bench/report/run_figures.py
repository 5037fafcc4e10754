"""Figures of one measured series: training curves, class accuracies and confusion."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from bench.report.figures import COLOURS, class_panel
from bench.report.plot import Figure, Panel, Scale

#: Most classes that have room for names and numbers.
_NAMED = 20


def curves(runs: Sequence[Sequence[Mapping[str, Any]]], alt: str) -> str | None:
    """Draw loss and test accuracy over the epochs, a line for each run; None if nothing was trained."""
    figure, top = Figure(330, 10), 8.0
    for name, label, colour in (
        ("loss", "training loss", "medium"),
        ("accuracy", "test accuracy (%)", "many"),
    ):
        drawn = [
            [(epoch["epoch"] + 1, epoch[name]) for epoch in epochs if epoch.get(name) is not None]
            for epochs in runs
        ]
        points = [point for line in drawn for point in line]
        if not points:
            continue
        across, up = (Scale.around([point[axis] for point in points]) for axis in (0, 1))
        panel = Panel(figure, 48, top, 272, 100, across, up)
        panel.axes("epoch", label, whole=True)
        for line in drawn:
            if len(line) < 50:
                for point in line:
                    figure.dot(*panel.at(*point), 1.3, COLOURS[colour])
            if line:
                figure.line([panel.at(*point) for point in line], COLOURS[colour], 1, 0.75)
        top += 142
        figure.height = top - 4
    return figure.svg(alt) if top > 8 else None


def classes(
    counts: Sequence[int],
    accuracies: Sequence[Sequence[float | None]],
    groups: Mapping[str, Sequence[int]],
    alt: str,
) -> str:
    """Draw each class's accuracy against its training images, mean and deviation over seeds."""
    table = np.array(accuracies, dtype=float)
    figure, legend = Figure(330, 215), 60.0
    panel = class_panel(figure, 20, 152, counts)
    for name, members in groups.items():
        for c in members:
            known = table[:, c][~np.isnan(table[:, c])]
            if len(known):
                x, middle = max(counts[c], 0.5), float(known.mean())
                if len(known) > 1:
                    panel.whisker(x, middle, float(known.std(ddof=1)), COLOURS[name])
                figure.dot(*panel.at(x, middle), 2, COLOURS[name])
        if members:
            figure.dot(legend, 8, 2.5, COLOURS[name])
            figure.text(legend + 6, 11, name)
            legend += 60
    return figure.svg(alt)


def confusion(matrix: np.ndarray, names: Sequence[str], alt: str) -> str:
    """Draw the share of each true class's images (C, C) given to each class."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    named = len(names) <= _NAMED
    margin, side = (70.0, 210.0) if named else (20.0, 240.0)
    figure, step = Figure(margin + side + 10, side + margin + 10), side / len(names)
    if named:
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            x, y = margin + step * column, 5 + step * row
            figure.rect(x, y, step, step, COLOURS["many"], shares[row, column])
            share = f"{100 * shares[row, column]:.0f}"
            figure.text(x + step / 2, y + step / 2 + 2.5, share, "middle", 6.5)
        for i, name in enumerate(names):
            middle = step * (i + 0.5) + 2.5
            figure.text(margin - 4, 5 + middle, name[:12], "end", 7)
            figure.text(margin + middle, 5 + side + 4, name[:12], "end", 7, turned=True)
    else:
        picture = f'href="data:image/png;base64,{_png(shares)}" style="image-rendering: pixelated"'
        size = f'x="{margin:g}" y="5" width="{side:g}" height="{side:g}"'
        figure.parts.append(f'<image {size} {picture} preserveAspectRatio="none"/>')
    figure.line([(margin, 5), (margin, 5 + side), (margin + side, 5 + side)])
    figure.text(margin + side / 2, side + margin + 6, "predicted class", "middle")
    figure.text(8, side / 2, "true class", "middle", turned=True)
    return figure.svg(alt)


def _png(shares: np.ndarray) -> str:
    """Write shares (C, C) as the opacity of one colour."""
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = [int(COLOURS["many"][i : i + 2], 16) for i in (1, 3, 5)]
    pixels[..., 3] = np.round(255 * shares)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return b64encode(file.getvalue()).decode()
