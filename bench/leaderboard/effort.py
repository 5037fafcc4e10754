"""Methods compared at equal effort: what a search found with each budget, by its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bench.cell import Cell, DataSet
from bench.gridfile import Grid
from bench.leaderboard.cell_settings import variants
from bench.leaderboard.compare import best
from bench.leaderboard.grouping import grouped
from bench.metrics import RANKED
from bench.records import Results
from bench.result import Result
from bench.search.choice import expected_best, winners
from bench.search.outcome import Outcome, outcome
from bench.search.record import MethodRecord


@dataclass(frozen=True)
class SearchedMethod:
    """A method with its trials.

    Attributes:
        record: its trials and winners, as the recipe was last run.
        variant: the settings that distinguish it from others of the same label in the comparison.
        outcomes: the current outcomes of its trials.
        finals: by budget, the finished runs of the winner by ascending seed.
    """

    record: MethodRecord
    variant: str
    title: str
    outcomes: tuple[Outcome, ...]
    finals: Mapping[int, tuple[Result, ...]]

    @property
    def key(self) -> str:
        """Its unique name in the comparison."""
        return " ".join(filter(None, (self.record.label, self.variant)))

    @property
    def ended(self) -> bool:
        """Whether all its trials have ended."""
        return all(one.ended for one in self.outcomes)

    @property
    def failed(self) -> int:
        """The number of failed trials."""
        return sum(one.ended and one.score is None for one in self.outcomes)

    @cached_property
    def expected(self) -> list[float]:
        """The expected best held-out accuracy for budgets 1, 2, ...; empty until all trials have ended."""
        return expected_best([one.score for one in self.outcomes]) if self.ended else []

    @property
    def outdated(self) -> bool:
        """Whether other draws win now than those that were trained on all training images."""
        trained = {won.budget: won.draw for won in self.record.winners}
        return bool(trained) and (
            not self.ended or winners([one.score for one in self.outcomes], list(trained)) != trained
        )

    def is_trained(self, budget: int) -> bool:
        """Whether the winner of a budget is trained with all seeds, or there is none as all trials failed."""
        if not self.record.winners:
            return self.ended
        return budget not in self.finals or len(self.finals[budget]) == self.record.seeds

    def accuracies(self, budget: int) -> dict[int, float]:
        """Return the test accuracy of a budget's winner by seed; balanced accuracy if that ranks."""
        return {run.cell.seed: float(run.row[run.headline]) for run in self.finals.get(budget, ())}


@dataclass(frozen=True)
class Comparison:
    """The methods searched on one data set with its tail, imbalance factor and backbone."""

    dataset: DataSet
    imbalance_factor: float
    backbone: str
    methods: tuple[SearchedMethod, ...]

    @property
    def headline(self) -> str:
        """The metric that ranks."""
        runs = (run for one in self.methods for finals in one.finals.values() for run in finals)
        return next((run.headline for run in runs), RANKED[0])

    def best(self, budget: int) -> set[str]:
        """Return the keys of the best methods with a budget, see `bench.leaderboard.compare.best`.

        It is empty until all searches are over and all seeds of the winners trained.
        """
        if any(not one.is_trained(budget) for one in self.methods):
            return set()
        return best({one.key: one.accuracies(budget) for one in self.methods})


def comparisons(results: Results, grid: Grid) -> list[Comparison]:
    """Return what a grid's search found, in recipe order; empty without a search."""
    if grid.search is None:
        return []
    cells = {cell.run_id: cell for _, cell in grid.cells}

    def data(record: MethodRecord) -> DataSet:
        return cells[record.trials[0].runs[0]].dataset

    found = grouped(grid.search.methods, lambda one: (data(one), one.imbalance_factor, one.backbone))
    return [Comparison(*key, tuple(_methods(records, cells, results))) for key, records in found.items()]


def _methods(
    records: Iterable[MethodRecord], cells: Mapping[str, Cell], results: Results
) -> Iterable[SearchedMethod]:
    for same in grouped(records, lambda record: record.label).values():
        names = variants([cells[record.trials[0].runs[0]] for record in same])
        for record, variant in zip(same, names, strict=True):
            titles = (results.of(cells[run]).row["title"] for run in record.trials[0].runs)
            yield SearchedMethod(
                record,
                variant,
                str(next(filter(None, titles), record.label)),
                tuple(outcome([cells[run] for run in trial.runs], results) for trial in record.trials),
                {won.budget: tuple(_done(won.runs, cells, results)) for won in record.winners},
            )


def _done(runs: Iterable[str], cells: Mapping[str, Cell], results: Results) -> Iterable[Result]:
    for run_id in runs:
        run = results.of(cells[run_id])
        if run.state.status == "done":
            yield run
