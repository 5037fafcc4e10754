"""The results of trials, and the progress of a search: read from records, without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cell import Cell
from bench.search.record import SearchRecord

if TYPE_CHECKING:
    from bench.records import Results

#: The metric by which trials are chosen: the mean accuracy of the classes on the held-out images.
METRIC = "balanced"


@dataclass(frozen=True)
class Outcome:
    """Whether a trial has ended, and its score, the mean of the metric over its seeds; None if it failed."""

    ended: bool
    score: float | None = None


def outcome(cells: Sequence[Cell], runs: Results) -> Outcome:
    """Return the outcome of a trial; it has failed if a run of it or of its parents has.

    Raises:
        ValueError: a cell has a test set, by which nothing may be chosen.
    """
    scores = []
    for cell in cells:
        if cell.dataset.held_out is None:
            raise ValueError(f"{cell.run_id}: not a trial, as it is evaluated on a test set")
        if any(runs.of(member).state.status == "failed" for member in cell.family()):
            return Outcome(True)
        run = runs.of(cell)
        score = run.row[METRIC] if run.state.status == "done" else None
        if score is None:
            return Outcome(False)
        scores.append(float(score))
    return Outcome(True, sum(scores) / len(scores))


def progress(search: SearchRecord, cells: Iterable[Cell], runs: Results) -> str:
    """Describe the progress of both phases, as in "search: 12 of 20; final: waits for search".

    Args:
        cells: of all its runs.
    """
    states = runs.states(cells)
    trials, finals = search.trial_runs, search.final_runs
    seen = Counter(states[run].status for run in trials)
    text = f"search: {seen['done']} of {len(trials)}"
    text += f" ({seen['failed']} failed)" if seen["failed"] else ""
    lost = {run for run in trials if states[run].status in ("failed", "blocked")}
    winnable = [one for one in search.methods if any(lost.isdisjoint(trial.runs) for trial in one.trials)]
    if not winnable:
        return f"{text}; final: nothing to train, as all trials failed"
    if not finals:
        ended = all(run in lost or states[run].status == "done" for run in trials)
        most = len(search.budgets) * sum(one.seeds for one in winnable)
        when = "the next `run` trains the winners" if ended else "waits for search"
        return f"{text}; final: {when} (at most {most} runs)"
    waiting = sum(not one.winners for one in winnable)
    done = sum(states[run].status == "done" for run in finals)
    more = f", {waiting} of {len(search.methods)} searches not over" if waiting else ""
    return f"{text}; final: {done} of {len(finals)}{more}"
