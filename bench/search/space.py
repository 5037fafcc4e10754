"""Drawing settings: ranges of hyper-parameters around a middle, and quasi-random points in them.

The points are a Sobol sequence with a random shift modulo 1 (Cranley and Patterson, SIAM J. Numer. Anal.
1976): any number of them covers the space evenly, and one more trial does not change the earlier ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, model_validator
from scipy.stats import qmc  # type: ignore[import-untyped]

from bench.cell import Frozen, Positive
from bench.randomness import generator

#: Significant digits of a drawn number: a recipe can repeat it, and no id depends on rounding errors.
DIGITS = 3

#: Points drawn for each setting that is needed, before a space is refused as too small.
TRIES = 64


class Range(Frozen):
    """A range: uniform in the value (`linear`) or in its logarithm (`log`), or a `choice` of values.

    A pair is the lowest and the highest value. One number is a distance from the middle: the largest
    difference (`linear`) or the largest factor (`log`).
    """

    linear: float | tuple[float, float] | None = None
    log: Positive | tuple[Positive, Positive] | None = None
    choice: list[Any] = Field([])

    @model_validator(mode="after")
    def _is_one(self) -> Range:
        if (self.linear is not None) + (self.log is not None) + bool(self.choice) != 1:
            raise ValueError("a range is one of linear, log and choice, as in {log: 10}")
        return self

    def check(self, middle: Any) -> None:
        """Check that values can be drawn around a middle.

        Raises:
            ValueError: the middle is not a number, or outside the range.
        """
        if self.choice:
            if middle not in self.choice:
                raise ValueError(f"the choice lacks the recipe's own value, {json.dumps(middle)}; add it")
            return
        if isinstance(middle, bool) or not isinstance(middle, int | float):
            raise ValueError(f"the recipe's own value is {json.dumps(middle)}, not a number; write a choice")
        if self.log is not None and middle <= 0:
            raise ValueError(f"log needs a value above 0, and the recipe's own is {middle:g}; write linear")
        low, high = self._ends(middle)
        if not low <= middle <= high or low == high:
            raise ValueError(
                f"from {low:g} to {high:g} should include the recipe's own value, {middle:g}, and others"
            )

    def at(self, share: float, middle: Any) -> Any:
        """Return the value at a share in [0, 1) of the range; an integer if the middle is one."""
        if self.choice:
            return self.choice[int(share * len(self.choice))]
        low, high = self._ends(middle)
        value = low + (high - low) * share if self.log is None else low * (high / low) ** share
        if isinstance(middle, int):
            return min(max(round(value), math.ceil(low)), math.floor(high))
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)

    def _ends(self, middle: float) -> tuple[float, float]:
        """Return the lowest and the highest value."""
        ends = self.linear if self.log is None else self.log
        assert ends is not None
        if isinstance(ends, tuple):
            return ends
        pair = (middle - ends, middle + ends) if self.log is None else (middle / ends, middle * ends)
        return min(pair), max(pair)


def draws(
    ranges: Mapping[str, Range], middle: Mapping[str, Any], count: int, *seed: object
) -> list[dict[str, Any]]:
    """Return `count` different settings: the middle, then quasi-random ones.

    A larger `count` begins with the same settings.

    Args:
        middle: the middle value of each key (see `Range.check`).

    Raises:
        ValueError: the ranges have fewer settings.
    """
    found = [dict(middle)]
    seen = {json.dumps(found[0], sort_keys=True)}
    for point in _points(len(ranges), count * TRIES, seed) if ranges else ():
        if len(found) == count:
            break
        drawn = {
            key: one.at(share, middle[key]) for (key, one), share in zip(ranges.items(), point, strict=True)
        }
        text = json.dumps(drawn, sort_keys=True)
        if text not in seen:
            seen.add(text)
            found.append(drawn)
    if len(found) < count:
        raise ValueError(
            f"has {len(found)} settings for {count} trials; give it wider ranges, or more of them"
        )
    return found


def _points(dimensions: int, count: int, seed: tuple[object, ...]) -> np.ndarray:
    """Return at least `count` points (n, dimensions) in [0, 1)."""
    shift = generator("search", *seed).random(dimensions)
    points = qmc.Sobol(dimensions, scramble=False).random_base2(math.ceil(math.log2(count)))
    return (points + shift) % 1
