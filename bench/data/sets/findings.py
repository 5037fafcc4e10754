"""The results of a check of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.split.longtail import shot_groups

AS_PUBLISHED, COUNTS_AGREE, DIFFERS, UNKNOWN = "as published", "counts agree", "differs", "not known"


@dataclass(frozen=True)
class PartSummary:
    """The content of a list file or of a part's folder.

    Attributes:
        most, least: images of the largest and the smallest class.
        shots: numbers of many-, medium- and few-shot classes.
        blob: git's hash of a list file.
    """

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
    """The results of a check.

    Attributes:
        present: number of files found, by part.
        faults: have to be corrected.
        leaks: images in two parts: faults, unless the data set allows them.
        remarks: are worth knowing.
        remedies: where lists or images can be obtained.
    """

    parts: list[PartSummary] = field(default_factory=list)
    present: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)


def summarise(part: str, file: Path, counts: np.ndarray, dataset: DataSet, blob: str = "") -> PartSummary:
    """Summarise a part by its class counts (C,)."""
    counts = counts[counts > 0]
    groups = shot_groups(counts, dataset.shots)
    return PartSummary(
        part=part,
        file=file,
        images=int(counts.sum()),
        classes=len(counts),
        most=int(counts.max()),
        least=int(counts.min()),
        shots=(len(groups["many"]), len(groups["medium"]), len(groups["few"])),
        blob=blob,
        verdict=UNKNOWN,
    )
