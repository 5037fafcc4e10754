"""Drawing as SVG: figures, panels with scaled axes, lines, dots and text. All lengths are points.

Not a plotting library, because a report has hundreds of pages with several figures each, and these take a
millisecond. Labels are text, which can be searched, copied and read aloud.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

#: Characters that XML does not allow.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

INK = "currentColor"


@dataclass
class Figure:
    """A figure of this size, and its elements so far."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        size: float = 9,
        *,
        colour: str = "",
        bold: bool = False,
        turned: bool = False,
    ) -> None:
        """Write text with its baseline at y; `turned` by 90 degrees, to be read upwards."""
        look = f' text-anchor="{anchor}"' if anchor != "start" else ""
        look += f' font-size="{size:g}"' if size != 9 else ""
        look += f' style="fill: {colour}"' if colour else ""
        look += ' font-weight="bold"' if bold else ""
        look += f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{look}>{clean(text)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> None:
        """Fill a rectangle."""
        alpha = "" if opacity == 1 else f' fill-opacity="{opacity:.2f}"'
        size = f'width="{width:.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"{alpha}/>')

    def line(
        self, points: Iterable[tuple[float, float]], colour: str = INK, width: float = 0.6, opacity: float = 1
    ) -> None:
        """Draw a line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        alpha = "" if opacity == 1 else f' stroke-opacity="{opacity:g}"'
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{alpha}/>'
        )

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        """Draw a dot."""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>')

    def points(self, points: Iterable[tuple[float, float]], size: float, colour: str) -> None:
        """Draw many small dots as one short element: lines of length 0 with round ends."""
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
        look = f'stroke="{colour}" stroke-width="{size:g}" stroke-linecap="round" stroke-opacity="0.75"'
        self.parts.append(f'<path d="{path}" {look}/>')

    def path(self, path: str, colour: str) -> None:
        """Fill a path."""
        self.parts.append(f'<path d="{path}" fill="{colour}"/>')

    def svg(self, alt: str) -> str:
        """Return the figure as SVG with its text alternative."""
        size = f'viewBox="0 0 {self.width:g} {self.height:g}" style="max-width: {self.width:g}pt"'
        font = f'font-family="sans-serif" font-size="9" fill="{INK}"'
        opening = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{clean(alt)}" {size} {font}>'
        )
        return "\n".join([opening, *self.parts, "</svg>"]) + "\n"


def clean(text: str) -> str:
    """Escape any text for XML."""
    return escape(_FORBIDDEN.sub("\ufffd", text))


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic scale from low to high."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], log: bool = False, margin: float = 0.06) -> Scale:
        """Return the scale of all values, with a margin."""
        low, high = min(values), max(values)
        if log:
            spread = max(math.log10(high / low), 0.1) * margin
            return cls(low / 10**spread, high * 10**spread, True)
        spread = (high - low or abs(high) or 1) * margin
        return cls(low - spread, high + spread)

    def __call__(self, value: float) -> float:
        """Return the position of a value, from 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most `most` round values to mark."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [s * 10.0**p for p in powers for s in steps if self.low <= s * 10.0**p <= self.high]
                if len(found) <= most:
                    break
            return found
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(s * power for s in (1, 2, 5, 10, 20) if (self.high - self.low) / (s * power) <= most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Panel:
    """A rectangle of a figure with two scales."""

    figure: Figure
    left: float
    top: float
    width: float
    height: float
    across: Scale
    up: Scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point in the figure."""
        return self.left + self.width * self.across(x), self.top + self.height * (1 - self.up(y))

    def axes(
        self,
        across: str = "",
        up: str = "",
        written: Callable[[float], str] = lambda value: f"{value:g}",
        whole: bool = False,
        most: int = 6,
    ) -> None:
        """Draw the axes with ticks and names; `whole` marks integers only."""
        bottom, right = self.top + self.height, self.left + self.width
        self.figure.line([(self.left, self.top), (self.left, bottom), (right, bottom)])
        for value in self.across.ticks(most):
            if not whole or value == int(value):
                x, _ = self.at(value, self.up.low)
                self.figure.line([(x, bottom), (x, bottom + 3)])
                self.figure.text(x, bottom + 12, written(value), "middle", 8)
        for value in self.up.ticks():
            _, y = self.at(self.across.low, value)
            self.figure.line([(self.left - 3, y), (self.left, y)])
            self.figure.text(self.left - 5, y + 3, written(value), "end", 8)
        if across:
            self.figure.text(self.left + self.width / 2, bottom + 25, across, "middle")
        if up:
            self.figure.text(self.left - 34, self.top + self.height / 2, up, "middle", turned=True)

    def whisker(self, x: float, y: float, reach: float, colour: str) -> None:
        """Draw a whisker of this reach up and down."""
        self.figure.line([self.at(x, y - reach), self.at(x, y + reach)], colour)
