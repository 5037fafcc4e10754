"""The critical-difference diagram: mean ranks across data sets, with bars over methods that do not differ."""

from __future__ import annotations

from collections.abc import Mapping

from bench.leaderboard.friedman import Ranking
from bench.report.figures import COLOURS
from bench.report.plot import Figure
from bench.report.text import counted, shortened

#: Points: widths of the axis and of the names on either side, height of a name.
_AXIS, _NAMES, _ROW = 300.0, 150.0, 13.0

#: Most letters of a name.
_LETTERS = 27


def critical_difference(ranking: Ranking, titles: Mapping[str, str], alt: str) -> str:
    """Draw an axis of ranks, the name of each method, and bars over methods that are not distinguished.

    Args:
        titles: titles of methods by name.
    """
    bars, methods = ranking.alike, len(ranking.methods)
    axis, left = 34.0, _NAMES
    first = axis + 14 + 6 * len(bars)
    half = (methods + 1) // 2
    figure = Figure(2 * _NAMES + _AXIS, first + _ROW * half + 4)

    def x(rank: float) -> float:
        return left + _AXIS * (rank - 1) / max(methods - 1, 1)

    figure.line([(left, axis), (left + _AXIS, axis)])
    step = max(1, methods // 8)
    for mark in range(1, methods + 1, step):
        figure.line([(x(mark), axis - 4), (x(mark), axis)])
        figure.text(x(mark), axis - 7, str(mark), "middle", 8)
    reach = min(x(1 + ranking.critical), left + _AXIS)
    figure.line([(left, 8), (reach, 8)], width=1.2)
    figure.text(left - 5, 11, f"critical difference {ranking.critical:.2f}", "end", 8)
    for i, (start, end) in enumerate(bars):
        y = axis + 7 + 6 * i
        figure.line([(x(ranking.ranks[i]) + d, y) for i, d in ((start, -2), (end, 2))], COLOURS["many"], 2.5)
    for i, (method, rank) in enumerate(zip(ranking.methods, ranking.ranks, strict=True)):
        on_left = i < half
        y = first + _ROW * (i if on_left else methods - 1 - i) + 6
        side = left - 4 if on_left else left + _AXIS + 4
        figure.line([(x(rank), axis), (x(rank), y - 3), (side, y - 3)])
        name = shortened(titles.get(method, method), _LETTERS)
        if on_left:
            figure.text(side - 3, y, f"{name} {rank:.2f}", "end", 8)
        else:
            figure.text(side + 3, y, f"{rank:.2f} {name}", size=8)
    return figure.svg(alt)


def caption(ranking: Ranking) -> str:
    """Describe the diagram and its limits."""
    return (
        f"Mean ranks of {counted(len(ranking.methods), 'method')} on the {ranking.leagues} data sets and "
        "imbalance factors on which all of them have a number of one league, the fullest there. A bar joins "
        "methods that Nemenyi's test at 5 % does not tell apart; Friedman's test of all being alike has "
        f"p = {ranking.p:.2g}. Factors of one data set are no independent data sets, so both are too sure."
    )
