"""The verdict on a measured number beside a published one: pure, and able to fail.

It is a function of four things alone: the difference, its standard error, the number of seeds, and the
protocol fields that are known to differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import StrEnum

#: A difference up to which a number counts as met, in points: what seeds alone make on CIFAR-LT.
CLOSE = 0.5

#: The largest standard error with which it counts as met.
STEADY = 0.25


class Verdict(StrEnum):
    """What is said of a measured cell beside a published number."""

    REPRODUCED = "reproduced"
    CLOSE = "close, n = 1"
    ABOVE = "above"
    BELOW = "below"
    INCONCLUSIVE = "inconclusive"
    DIFFERS = "protocol differs"
    NONE = "no published number"


def verdict(d: float | None, s: float | None, n: int, differs: Collection[str] = ()) -> Verdict:
    """Judge a difference.

    Args:
        d: measured mean minus published value, in points; None where there is nothing to compare.
        s: standard error of the measured mean over seeds; None for one seed, which has none.
        n: how many seeds were measured.
        differs: names of the protocol fields known to differ.
    """
    if d is None or math.isnan(d) or n < 1:
        return Verdict.NONE
    if differs:
        return Verdict.DIFFERS
    met = _at_most(abs(d), CLOSE)
    if n == 1:
        return Verdict.CLOSE if met else Verdict.INCONCLUSIVE
    if s is None or math.isnan(s):
        return Verdict.INCONCLUSIVE
    if met:
        return Verdict.REPRODUCED if _at_most(s, STEADY) else Verdict.INCONCLUSIVE
    if _at_most(abs(d), CLOSE + 2 * s):
        return Verdict.INCONCLUSIVE
    return Verdict.ABOVE if d > 0 else Verdict.BELOW


def _at_most(value: float, bound: float) -> bool:
    """Compare in spite of binary fractions: 52.3 - 51.8 is 0.5."""
    return value <= bound + 1e-9
