"""The test-agnostic track of the board: each measured series on eleven test sets, and their plain mean.

A series that does not adapt has accuracies computed from its class accuracies. One that adapts to the
unlabelled test images (see `bench.train.adapting`) has a second row, which is never ranked with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.leaderboard.compare import best
from bench.leaderboard.entries import deviation, mean
from bench.leaderboard.lines import Line
from bench.metrics import agnostic
from bench.result import Result

#: The plain mean over the test sets; rows are sorted by it.
MEAN = "mean"

#: All columns of the track.
SETS = (*agnostic.TEST_SETS, MEAN)


@dataclass(frozen=True)
class TrackRow:
    """A measured series on the test sets; `adapted` if it saw their unlabelled images."""

    line: Line
    adapted: bool
    by_seed: Mapping[int, Mapping[str, float]]

    @property
    def key(self) -> str:
        """Its unique name."""
        return f"{self.line.key}{' adapted' if self.adapted else ''}"

    @cached_property
    def means(self) -> dict[str, tuple[float | None, float | None]]:
        """Mean and standard deviation over seeds, by test set."""
        values = {name: [accuracies[name] for accuracies in self.by_seed.values()] for name in SETS}
        return {name: (mean(known), deviation(known)) for name, known in values.items()}


def of_run(run: Result, *, adapted: bool = False) -> dict[str, float] | None:
    """Return a run's accuracy on each test set and their mean; None if unknown."""
    if adapted:
        found = dict((run.record.get("test_agnostic") or {}).get("accuracy") or {})
    else:
        accuracies = (run.record.get("metrics") or {}).get("per_class")
        counts = (run.record.get("data") or {}).get("class_counts")
        found = agnostic.track(np.array(accuracies, float), np.array(counts)) if accuracies and counts else {}
    if found.keys() != agnostic.TEST_SETS.keys():
        return None
    return found | {MEAN: sum(found.values()) / len(found)}


def rows(lines: Iterable[Line]) -> list[TrackRow]:
    """Return the rows of measured lines, sorted by mean, best first; adapted ones last."""
    found = []
    for line in lines:
        for adapted in (False, True):
            by_seed = {run.cell.seed: known for run in line.runs if (known := of_run(run, adapted=adapted))}
            if by_seed:
                found.append(TrackRow(line, adapted, by_seed))
    return sorted(found, key=lambda row: (row.adapted, -(row.means[MEAN][0] or 0), row.key))


def bold(members: Sequence[TrackRow]) -> dict[str, set[str]]:
    """Return the keys of the bold rows by test set, see `bench.leaderboard.compare.best`."""
    ranked = [row for row in members if not row.adapted]
    return {
        name: best({row.key: {seed: known[name] for seed, known in row.by_seed.items()} for row in ranked})
        for name in SETS
    }
