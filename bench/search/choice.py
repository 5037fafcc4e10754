"""Choosing among trials: the winner of a budget, and the expected best of any budget.

Scores are those of the trials in the order of their draws, in percent, higher is better; None if one failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, fsum


def winner(scores: Sequence[float | None]) -> int | None:
    """Return the number, from 1, of the best draw, the first of equals; None if all failed."""
    known = [(-score, draw) for draw, score in enumerate(scores, start=1) if score is not None]
    return min(known)[1] if known else None


def winners(scores: Sequence[float | None], budgets: Sequence[int]) -> dict[int, int]:
    """Return the winner of each budget k among the first k trials; a budget without one is left out."""
    found = {k: winner(scores[:k]) for k in budgets}
    return {k: draw for k, draw in found.items() if draw is not None}


def expected_best(scores: Sequence[float | None]) -> list[float]:
    """Return for k = 1, ..., n the expected best of k of the n trials, drawn without replacement.

    The j-th lowest score s_(j) is the best of C(j-1, k-1) of all sets of k, so the expectation is
    sum_{j >= k} C(j-1, k-1) / C(n, k) s_(j). A trial that failed counts as 0.
    """
    ordered, n = sorted(score or 0.0 for score in scores), len(scores)
    return [
        fsum(comb(j - 1, k - 1) / comb(n, k) * ordered[j - 1] for j in range(k, n + 1))
        for k in range(1, n + 1)
    ]
