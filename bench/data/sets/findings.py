"""What a check of a data set found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.split.longtail import shot_groups

MOST_TOLD = 5  # files of a kind

AS_PUBLISHED, COUNTS_AGREE, DIFFERS, UNKNOWN = "as published", "counts agree", "differs", "not known"


@dataclass(frozen=True)
class Part:
    """What one list file, or a part's folder, holds; `shots` are its many-, medium- and few-shot classes."""

    part: str
    file: Path
    images: int
    classes: int
    most: int
    least: int
    shots: tuple[int, int, int]
    blob: str
    verdict: str


@dataclass
class Findings:
    """All that a check found: `faults` have to be mended, `remarks` should be known.

    `leaks` are images in two parts: faults as well, unless the data set allows them.
    """

    parts: list[Part] = field(default_factory=list)
    there: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)


def part_of(part: str, file: Path, counts: np.ndarray, dataset: DataSet, blob: str = "") -> Part:
    """Describe a part by its counts (C,)."""
    present = counts[counts > 0]
    groups = shot_groups(present, dataset.shots)
    return Part(
        part=part,
        file=file,
        images=int(counts.sum()),
        classes=len(present),
        most=int(present.max()),
        least=int(present.min()),
        shots=(len(groups["many"]), len(groups["medium"]), len(groups["few"])),
        blob=blob,
        verdict=UNKNOWN,
    )
