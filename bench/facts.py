"""What the literature says about this project's methods: `methods/methods.csv`, read without torch.

Each fact is written there once. `@register` adds the class and its defaults; `bench.published` reads the same
file for the names that sources use, and checks all of it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "methods" / "methods.csv"


@dataclass(frozen=True)
class Facts:
    """A method according to its paper; unknown texts are empty, an unknown year is None."""

    title: str
    family: str
    venue: str = ""
    year: int | None = None
    paper: str = ""

    @property
    def published(self) -> str:
        """Venue and year."""
        return f"{self.venue} {self.year or ''}".strip()


@cache
def built_in() -> dict[str, Facts]:
    """Return the facts of this project's methods by name."""
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        row["method"]: Facts(
            title=row["title"],
            family=row["family"],
            venue=row["venue"],
            year=int(row["year"]) if row["year"] else None,
            paper=row["paper"],
        )
        for row in rows
    }
