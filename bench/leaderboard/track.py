"""The test-agnostic track of the board: each measured series on eleven test sets, and their plain mean.

What does not adapt has what its class accuracies say. What adapts to a test set by its unlabelled images (see
`bench.train.adapting`) has a row besides, which is never ranked with the others.
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
from bench.records import Result

#: The plain mean over the test sets, by which rows are ordered.
MEAN = "mean"

#: All columns of the track.
SETS = (*agnostic.TEST_SETS, MEAN)


@dataclass(frozen=True)
class Row:
    """A measured series on the test sets; `adapted` says that it saw their unlabelled images."""

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
        values = {name: [scores[name] for scores in self.by_seed.values()] for name in SETS}
        return {name: (mean(found), deviation(found)) for name, found in values.items()}


def of_run(run: Result, *, adapted: bool = False) -> dict[str, float] | None:
    """Return a run's accuracy on each test set, and their mean; None where it is not known."""
    if adapted:
        found = dict((run.record.get("test_agnostic") or {}).get("accuracy") or {})
    else:
        accuracies = (run.record.get("metrics") or {}).get("per_class")
        counts = (run.record.get("data") or {}).get("class_counts")
        found = agnostic.track(np.array(accuracies, float), np.array(counts)) if accuracies and counts else {}
    if found.keys() != agnostic.TEST_SETS.keys():
        return None
    return found | {MEAN: sum(found.values()) / len(found)}


def rows(lines: Iterable[Line]) -> list[Row]:
    """Return the rows of measured lines, by their mean, the best first; the adapted ones last."""
    found = []
    for line in lines:
        for adapted in (False, True):
            known = {run.cell.seed: scores for run in line.runs if (scores := of_run(run, adapted=adapted))}
            if known:
                found.append(Row(line, adapted, known))
    return sorted(found, key=lambda row: (row.adapted, -(row.means[MEAN][0] or 0), row.key))


def bold(members: Sequence[Row]) -> dict[str, set[str]]:
    """Return by test set the keys of what is bold among rows, as `bench.leaderboard.compare.best` has it."""
    rivals = [row for row in members if not row.adapted]
    return {
        name: best({row.key: {s: scores[name] for s, scores in row.by_seed.items()} for row in rivals})
        for name in SETS
    }
