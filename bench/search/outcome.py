"""How trials came out, and how far a search is: read from records, without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cell import Cell
from bench.search.record import SearchRecord

if TYPE_CHECKING:
    from bench.records import Results

#: What trials are chosen by: the mean over classes of their accuracies, on the held-out images.
SCORE = "balanced"


@dataclass(frozen=True)
class Outcome:
    """Whether a trial has ended, and its score, the mean over its seeds; None if it failed."""

    ended: bool
    score: float | None = None


def outcome(cells: Sequence[Cell], runs: Results) -> Outcome:
    """Say how a trial came out; one of which a run failed, or what it starts from, has failed.

    Raises:
        ValueError: a cell is scored on a test set, which chooses nothing.
    """
    scores = []
    for cell in cells:
        if cell.dataset.held_out is None:
            raise ValueError(f"{cell.run_id}: is no trial, for it is scored on a test set")
        if any(runs.of(member).state.status == "failed" for member in cell.family()):
            return Outcome(True)
        run = runs.of(cell)
        score = run.row[SCORE] if run.state.status == "done" else None
        if score is None:
            return Outcome(False)
        scores.append(float(score))
    return Outcome(True, sum(scores) / len(scores))


def phases(search: SearchRecord, cells: Mapping[str, Cell], runs: Results) -> str:
    """Say how far both phases of a search are, as in "search: 12 of 20; final: waits for search".

    Args:
        cells: of all its runs, by their ids.
    """
    states = runs.states(cells.values())
    trials, finals = search.trial_runs, search.final_runs
    seen = Counter(states[run].status for run in trials)
    told = f"search: {seen['done']} of {len(trials)}"
    told += f" ({seen['failed']} failed)" if seen["failed"] else ""
    waiting = sum(not one.winners for one in search.methods)
    if not finals:
        ended = all(states[run].status in ("done", "failed", "blocked") for run in trials)
        most = len(search.budgets) * sum(one.seeds for one in search.methods)
        when = "the next `run` trains what won" if ended else "waits for search"
        return f"{told}; final: {when} (at most {most} runs)"
    done = sum(states[run].status == "done" for run in finals)
    more = f", {waiting} of {len(search.methods)} searches not over" if waiting else ""
    return f"{told}; final: {done} of {len(finals)}{more}"
