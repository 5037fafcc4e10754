"""Measured and published together: leagues, verdicts, comparisons, and what stored scores still tell.

`entries` joins our runs and the literature into one table; everything else reads it. Nothing here imports
torch, formats a number for display, or knows of pages.
"""

from __future__ import annotations

from bench.leaderboard.check import Explanation, check, compared, explain, side_by_side
from bench.leaderboard.compare import Difference, best, by_seed, difference
from bench.leaderboard.entries import entries
from bench.leaderboard.leagues import ANY, FEWEST, FIELDS, League, average_rank, differences, leagues, ranked
from bench.leaderboard.protocols import protocols
from bench.leaderboard.verdict import Verdict, verdict

__all__ = [
    "ANY",
    "FEWEST",
    "FIELDS",
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
    "differences",
    "entries",
    "explain",
    "leagues",
    "protocols",
    "ranked",
    "side_by_side",
    "verdict",
]
