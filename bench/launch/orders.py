"""What there is to run: cells, each with where it is trained and from which state it is taken up."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cell import Cell, families
from bench.errors import BenchError
from bench.launch.anew import latest, lend, pending, settle
from bench.records import AGAIN, Busy, Results, RunDir, State
from bench.rundir import attempt


@dataclass(frozen=True)
class Order:
    """One cell to run, with all that its process needs to know.

    Attributes:
        again: the states of a run from which it is taken up.
        beside: whether it is trained once more, beside the run that is there (see `bench.launch.anew`).
    """

    cell: Cell
    results: Path
    data: Path
    again: frozenset[str]
    methods: tuple[Path, ...] = ()
    beside: bool = False

    @property
    def run(self) -> RunDir:
        """The directory that it is trained in; of an attempt that took its place, the run's own."""
        run_id = self.cell.run_id
        return latest(self.results, run_id) if self.beside else RunDir(self.results, run_id)

    @property
    def folder(self) -> Path:
        """The results folder that it and its parents are in while it is trained."""
        return self.run.path.parents[1]

    def wants(self, status: str) -> bool:
        """Tell whether a run of this state is to be taken up."""
        return status in self.again

    def elder(self, parent: Cell) -> State:
        """Say how a parent stands, by its new training if there is one: it may be another then."""
        new = attempt(self.results, parent.run_id).look()[0]
        if new.status == "missing":
            return RunDir(self.results, parent.run_id).look()[0]
        return State("running") if new.status == "done" else new  # it is about to take its place

    def told(self, reason: str | None) -> str | None:
        """Add to why a run did not come to its end that an old one stands, if one does."""
        own = RunDir(self.results, self.cell.run_id)
        if reason is None or self.run.path == own.path or not own.is_done():
            return reason
        return f"{reason}; the old run stands as it was"

    def settle(self) -> None:
        """Let a new training that has ended take the old one's place, if it shall."""
        if self.beside:
            with contextlib.suppress(Busy, OSError):  # the next launcher does it
                settle(self.results, self.cell.run_id)


def orders_for(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    methods: Sequence[Path] = (),
    anew: Collection[str] = (),
) -> list[Order]:
    """Return the orders of the cells and their ancestors, parents first; arguments as of `run_grid`.

    What is committed is done, and wanted only where a run to be trained needs its weights.
    """
    family, known = families(cells), Results(results)
    asked = pending(results, family)
    wanted = {*anew, *known.needed(cells, AGAIN, {*asked, *anew})}
    orders = []
    for run_id, cell in family.items():
        settled = known[run_id].of_line and run_id not in {*wanted, *asked}
        own = frozenset() if settled else AGAIN
        orders.append(Order(cell, results, data, own, tuple(methods), run_id in asked))
    return orders


def prepare(order: Order) -> bool:
    """Look again, now that nobody else can be at it, whether to run."""
    run = order.run
    with run.lock():
        if not order.wants(_recorded(run)):
            return False
        run.sweep()
        if order.beside:
            lend(order.results, order.cell)
    return True


def record(order: Order, **end: str | None) -> None:
    """Write the record of a run that could not write one itself."""
    run, cell = order.run, order.cell
    with contextlib.suppress(Busy, OSError), run.lock():  # taken up elsewhere; or the disk is full
        if _recorded(run) not in ("done", "failed"):
            run.write_cell(cell)
            if end.get("traceback"):
                with run.log.open("a", encoding="utf-8") as log:
                    log.write(str(end["traceback"]))
            run.write_record({"traceback": None, **end, "cell": cell.model_dump(mode="json")})


def _recorded(run: RunDir) -> str:
    """Return the status in the record, whoever holds the lock."""
    if not run.record.exists():
        return "missing"
    try:
        return str(run.read_record()["status"])
    except BenchError:
        return "unreadable"
