"""Measured and published together: leagues, verdicts, comparisons, and what stored scores still tell.

`entries` joins our runs and the literature into one table; everything else reads it. Nothing here imports
torch, formats a number for display, or knows of pages.
"""

from __future__ import annotations

from bench.leaderboard.check import Explanation, check, compared, explain, side_by_side
from bench.leaderboard.compare import Difference, best, by_seed, difference
from bench.leaderboard.entries import entries
from bench.leaderboard.leagues import FEWEST, League, average_rank, ranked
from bench.leaderboard.protocols import protocols
from bench.leaderboard.verdict import Verdict, verdict

__all__ = [
    "FEWEST",
    "Difference",
    "Explanation",
    "League",
    "Verdict",
    "average_rank",
    "best",
    "by_seed",
    "check",
    "compared",
    "difference",
    "entries",
    "explain",
    "protocols",
    "ranked",
    "side_by_side",
    "verdict",
]
