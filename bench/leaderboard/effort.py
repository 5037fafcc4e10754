"""Method against method at equal effort: what a search found with each budget, as the records say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bench.cell import Cell
from bench.leaderboard.board import variants
from bench.leaderboard.compare import best
from bench.metrics import RANKED
from bench.records import Grid, Result, Results
from bench.search.choice import expected_best, winners
from bench.search.outcome import Outcome, outcome
from bench.search.record import MethodRecord


@dataclass(frozen=True)
class Effort:
    """One searched method at one place.

    Attributes:
        record: its trials and winners, as the recipe was last run.
        variant: in what it differs from the same label beside it.
        cell: of its first trial.
        outcomes: of its trials, as the records are now.
        finals: by budget, the runs of the winner that are done, in the order of their seeds.
    """

    record: MethodRecord
    variant: str
    title: str
    cell: Cell
    outcomes: tuple[Outcome, ...]
    finals: Mapping[int, tuple[Result, ...]]

    @property
    def key(self) -> str:
        """Its name at its place."""
        return " ".join(filter(None, (self.record.label, self.variant)))

    @property
    def ended(self) -> bool:
        """Whether all its trials have ended."""
        return all(one.ended for one in self.outcomes)

    @property
    def failed(self) -> int:
        """How many trials failed."""
        return sum(one.ended and one.score is None for one in self.outcomes)

    @cached_property
    def expected(self) -> list[float]:
        """The expected best held-out score for each budget from 1; empty until all trials have ended."""
        return expected_best([one.score for one in self.outcomes]) if self.ended else []

    @property
    def outdated(self) -> bool:
        """Whether other draws win now than those that were trained on everything."""
        trained = {won.budget: won.draw for won in self.record.winners}
        return bool(trained) and (
            not self.ended or winners([one.score for one in self.outcomes], list(trained)) != trained
        )

    def scores(self, budget: int) -> dict[int, float]:
        """Return what a budget's winner is ranked by, of each seed: test accuracy, or balanced accuracy."""
        return {run.cell.seed: float(run.row[run.headline]) for run in self.finals.get(budget, ())}


@dataclass(frozen=True)
class Place:
    """A data set, imbalance factor and backbone, and all that was searched there."""

    dataset: str
    imbalance_factor: float
    backbone: str
    efforts: tuple[Effort, ...]

    @property
    def headline(self) -> str:
        """The metric of the test images that ranks here."""
        runs = (run for one in self.efforts for some in one.finals.values() for run in some)
        return next((run.headline for run in runs), RANKED[0])

    def strong(self, budget: int) -> set[str]:
        """Return the keys of the methods that are best with a budget, as far as noise lets it be told."""
        return best({one.key: one.scores(budget) for one in self.efforts})


def places(results: Results, grid: Grid) -> list[Place]:
    """Return what a grid's search found, in the order of the recipe; nothing where it has none."""
    if grid.search is None:
        return []
    cells = {cell.run_id: cell for _, cell in grid.cells}
    found = dict[tuple[str, float, str], list[MethodRecord]]()
    for one in grid.search.methods:
        found.setdefault((one.dataset, one.imbalance_factor, one.backbone), []).append(one)
    return [Place(*key, tuple(_efforts(some, cells, results))) for key, some in found.items()]


def _efforts(
    records: Iterable[MethodRecord], cells: Mapping[str, Cell], results: Results
) -> Iterable[Effort]:
    alike = dict[str, list[MethodRecord]]()
    for record in records:
        alike.setdefault(record.label, []).append(record)
    for some in alike.values():
        firsts = [cells[record.trials[0].runs[0]] for record in some]
        for record, cell, variant in zip(some, firsts, variants(firsts), strict=True):
            runs = [results.of(cells[run]) for run in record.trials[0].runs]
            known = [str(run.row["title"]) for run in runs if run.row["title"]]
            yield Effort(
                record,
                variant,
                known[0] if known else record.label,
                cell,
                tuple(outcome([cells[run] for run in trial.runs], results) for trial in record.trials),
                {
                    won.budget: tuple(
                        run for run in (results.of(cells[i]) for i in won.runs) if run.state.status == "done"
                    )
                    for won in record.winners
                },
            )
