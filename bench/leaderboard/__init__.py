"""Measured and published numbers together: leagues, verdicts, comparisons, analyses of stored logits.

`gather` reads the runs and the literature into a `Board` of entries, pairs and lines, from which tables and
pages are made. Nothing here imports torch, draws figures, or writes pages.
"""

from __future__ import annotations

from bench.leaderboard.board import Board, gather
from bench.leaderboard.check import compared, side_by_side
from bench.leaderboard.compare import Difference, best, difference
from bench.leaderboard.entries import entries
from bench.leaderboard.leagues import FEWEST, League, average_rank, ranked
from bench.leaderboard.protocols import protocols
from bench.leaderboard.verdict import Verdict, verdict

__all__ = [
    "FEWEST",
    "Board",
    "Difference",
    "League",
    "Verdict",
    "average_rank",
    "best",
    "compared",
    "difference",
    "entries",
    "gather",
    "protocols",
    "ranked",
    "side_by_side",
    "verdict",
]
