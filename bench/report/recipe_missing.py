"""What a recipe asked for and has no number: why seeds are missing, and which labels were not begun."""

from __future__ import annotations

from collections.abc import Sequence

from bench.leaderboard.lines import Asked
from bench.report.text import counted
from bench.report.values import seeds_of


def missing(lines: Sequence[Asked], begun: Sequence[Asked]) -> list[tuple[str, str, str]]:
    """Return status, which, and why, of all lines; `begun` are those that have a row."""
    return [told for line in lines for told in _not_done(line)] + _not_begun(lines, begun)


def _not_done(line: Asked) -> list[tuple[str, str, str]]:
    """Say why seeds of a line have no number, where more is known than the table says."""
    name = line.label + (f" [{line.variant}]" if line.variant else "")
    return [
        (status, f"{name}, {seeds_of(seeds)}: {status}", reason.partition("\n")[0])
        for status, reason, seeds in line.not_done
        if reason
    ]


def _not_begun(lines: Sequence[Asked], begun: Sequence[Asked]) -> list[tuple[str, str, str]]:
    """Say which lines the table leaves out."""
    names = list(dict.fromkeys(line.label for line in lines if not line.begun))
    if not names or len(begun) == len(lines):
        return []
    return [("missing", counted(len(names), "label") + " not run yet", ", ".join(names))]
