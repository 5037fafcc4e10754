"""The verdict on a measured number beside a published one.

It depends only on the difference, its standard error, the number of seeds, and the protocol fields known to
differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import StrEnum

#: The largest difference, in points, that counts as reproduced: what seeds alone make on CIFAR-LT.
CLOSE = 0.5

#: The largest standard error with which a number counts as reproduced.
STEADY = 0.25


class Verdict(StrEnum):
    """The verdict on a measured cell beside a published number."""

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
        d: measured mean minus published value, in points; None if nothing is published.
        s: standard error of the measured mean over seeds; None for one seed.
        n: number of measured seeds.
        differs: names of the protocol fields known to differ.
    """
    if d is None or math.isnan(d) or n < 1:
        return Verdict.NONE
    if differs:
        return Verdict.DIFFERS
    close = _at_most(abs(d), CLOSE)
    if n == 1:
        return Verdict.CLOSE if close else Verdict.INCONCLUSIVE
    if s is None or math.isnan(s):
        return Verdict.INCONCLUSIVE
    if close:
        return Verdict.REPRODUCED if _at_most(s, STEADY) else Verdict.INCONCLUSIVE
    if _at_most(abs(d), CLOSE + 2 * s):
        return Verdict.INCONCLUSIVE
    return Verdict.ABOVE if d > 0 else Verdict.BELOW


def _at_most(value: float, bound: float) -> bool:
    """Compare up to rounding errors of binary fractions: 52.3 - 51.8 is at most 0.5."""
    return value <= bound + 1e-9
