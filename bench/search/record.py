"""A search in a grid file: its trials, their scores, and the winner of each budget."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from bench.cell import Frozen, HeldOut


class TrialRecord(Frozen):
    """A setting, the runs that try it, and their mean score: None if it failed or trials have not ended."""

    setting: dict[str, Any]
    runs: tuple[str, ...] = Field(min_length=1)
    score: float | None = None


class WinnerRecord(Frozen):
    """The number, from 1, of the draw that won a budget, and the runs that train it on all images."""

    budget: int
    draw: int
    runs: tuple[str, ...]


class MethodRecord(Frozen):
    """A searched label at one point of the grid, its trials in the order of their draws.

    Attributes:
        seeds: number of runs of a winner.
        winners: empty until all trials have ended; a budget whose trials all failed has none.
    """

    label: str
    dataset: str
    imbalance_factor: float
    backbone: str
    seeds: int
    trials: tuple[TrialRecord, ...] = Field(min_length=1)
    winners: tuple[WinnerRecord, ...] = Field(())

    @model_validator(mode="after")
    def _winners_were_tried(self) -> MethodRecord:
        if any(not 1 <= won.draw <= len(self.trials) for won in self.winners):
            raise ValueError("the winner is not among the trials")
        return self


class SearchRecord(Frozen):
    """A whole search; `score` names the metric of the held-out images by which winners are chosen."""

    budgets: tuple[int, ...]
    held_out: HeldOut
    score: str
    methods: tuple[MethodRecord, ...]

    @property
    def trial_runs(self) -> list[str]:
        """The runs of all trials."""
        return [run for one in self.methods for trial in one.trials for run in trial.runs]

    @property
    def final_runs(self) -> list[str]:
        """The runs of all winners so far, each once."""
        return list(dict.fromkeys(run for one in self.methods for won in one.winners for run in won.runs))
