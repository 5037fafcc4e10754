"""Figures of one measured series: how it learned, which classes it knows, and what it takes them for."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.report.figures import COLOURS
from bench.report.plot import Figure, Panel, Scale

#: More classes than this have no room for their names and numbers.
_NAMED = 20


def curves(seeds: Mapping[int, Sequence[Mapping[str, Any]]], alt: str) -> str | None:
    """Draw loss and test accuracy over the epochs, a line for each seed; None where nothing was trained."""
    figure, top = Figure(330, 10), 8.0
    for name, label, colour in (
        ("loss", "training loss", "medium"),
        ("accuracy", "test accuracy (%)", "many"),
    ):
        drawn = [
            [(line["epoch"] + 1, line[name]) for line in lines if line.get(name) is not None]
            for lines in seeds.values()
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
    figure, told = Figure(330, 215), 60.0
    across = Scale.around([max(count, 0.5) for count in counts], log=True)
    panel = Panel(figure, 48, 20, 272, 152, across, Scale(-3, 103))
    panel.axes("training images of the class", "accuracy (%)")
    for name, members in groups.items():
        for c in members:
            known = table[:, c][~np.isnan(table[:, c])]
            if len(known):
                x, middle = max(counts[c], 0.5), float(known.mean())
                if len(known) > 1:
                    panel.whisker(x, middle, float(known.std(ddof=1)), COLOURS[name])
                figure.dot(*panel.at(x, middle), 2, COLOURS[name])
        if members:
            figure.dot(told, 8, 2.5, COLOURS[name])
            figure.text(told + 6, 11, name)
            told += 60
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
        for place, name in enumerate(names):
            middle, below = step * (place + 0.5), 5 + side + 4
            figure.text(margin - 4, 5 + middle + 2.5, name[:12], "end", 7)
            x = margin + middle + 2.5
            figure.text(x, below, name[:12], "end", 7, f' transform="rotate(-90 {x:.1f} {below:.1f})"')
    else:
        picture = f'href="data:image/png;base64,{_png(shares)}" style="image-rendering: pixelated"'
        size = f'x="{margin:g}" y="5" width="{side:g}" height="{side:g}"'
        figure.parts.append(f'<image {size} {picture} preserveAspectRatio="none"/>')
    figure.line([(margin, 5), (margin, 5 + side), (margin + side, 5 + side)])
    figure.text(margin + side / 2, side + margin + 6, "given", "middle")
    turn = f' transform="rotate(-90 8 {side / 2:.1f})"'
    figure.text(8, side / 2, "true class", "middle", more=turn)
    return figure.svg(alt)


def _png(shares: np.ndarray) -> str:
    """Write shares (C, C) as the opacity of one colour."""
    red, green, blue = (int(COLOURS["many"][i : i + 2], 16) for i in (1, 3, 5))
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[:] = red, green, blue, 0
    pixels[..., 3] = np.round(255 * shares)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # no filter

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", shares.shape[1], shares.shape[0], 8, 6, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b""))
    return b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()
