"""The critical-difference diagram: mean ranks across data sets, and which methods are not told apart."""

from __future__ import annotations

from collections.abc import Mapping

from bench.leaderboard.friedman import Ranking
from bench.report.figures import COLOURS
from bench.report.plot import Figure
from bench.report.text import counted

#: Points: the width of the axis and of the names on either side, and from one name to the next.
_AXIS, _NAMES, _ROW = 300.0, 150.0, 13.0

#: Most letters of a name that are shown.
_LETTERS = 27


def critical_difference(ranking: Ranking, titles: Mapping[str, str], alt: str) -> str:
    """Draw an axis of ranks, a name for each method, and a bar over those that are not told apart.

    Args:
        titles: of methods by their names.
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
    for place, (start, end) in enumerate(bars):
        y = axis + 7 + 6 * place
        figure.line([(x(ranking.ranks[i]) + d, y) for i, d in ((start, -2), (end, 2))], COLOURS["many"], 2.5)
    for place, (method, rank) in enumerate(zip(ranking.methods, ranking.ranks, strict=True)):
        on_left = place < half
        y = first + _ROW * (place if on_left else methods - 1 - place) + 6
        side = left - 4 if on_left else left + _AXIS + 4
        figure.line([(x(rank), axis), (x(rank), y - 3), (side, y - 3)])
        name = titles.get(method, method)
        short = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
        said = f"{short} {rank:.2f}" if on_left else f"{rank:.2f} {short}"
        figure.text(side - 3 if on_left else side + 3, y, said, "end" if on_left else "start", 8)
    return figure.svg(alt)


def caption(ranking: Ranking) -> str:
    """Say what the diagram shows, and how far it is to be trusted."""
    return (
        f"Mean ranks of {counted(len(ranking.methods), 'method')} on the {ranking.leagues} data sets and "
        "imbalance factors on which all of them have a number of one league, the fullest there. A bar joins "
        "methods that Nemenyi's test at 5 % does not tell apart; Friedman's test of all being alike has "
        f"p = {ranking.p:.2g}. Factors of one data set are no independent data sets, so both are too sure."
    )
