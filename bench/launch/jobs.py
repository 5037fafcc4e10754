"""The jobs of a launcher: cells to run, with where and from which states."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cell import Cell, families
from bench.errors import BenchError
from bench.launch.rerun import latest, link_parents, pending, settle
from bench.records import AGAIN, Results
from bench.rundir import Busy, RunDir, State, attempt


@dataclass(frozen=True)
class Job:
    """One cell to run, with everything that its process needs.

    Attributes:
        again: the states in which the run is started or continued.
        beside: whether it is trained again, beside the run that is there (see `bench.launch.rerun`).
    """

    cell: Cell
    results: Path
    data: Path
    again: frozenset[str]
    methods: tuple[Path, ...] = ()
    beside: bool = False

    @property
    def run(self) -> RunDir:
        """The directory it is trained in."""
        run_id = self.cell.run_id
        return latest(self.results, run_id) if self.beside else RunDir(self.results, run_id)

    @property
    def folder(self) -> Path:
        """The results folder of its run and its parents while it is trained."""
        return self.run.path.parents[1]

    def wants(self, status: str) -> bool:
        """Whether a run of this status is to be started or continued."""
        return status in self.again

    def parent_state(self, parent: Cell) -> State:
        """Return the state of a parent, or of its rerun if there is one: the weights will change."""
        new = attempt(self.results, parent.run_id).look()[0]
        if new.status == "missing":
            return RunDir(self.results, parent.run_id).look()[0]
        return State("running") if new.status == "done" else new  # about to replace the old run

    def full_reason(self, reason: str | None) -> str | None:
        """Return why the run did not finish, with a note if an old run is still there."""
        own = RunDir(self.results, self.cell.run_id)
        if reason is None or self.run.path == own.path or not own.is_done():
            return reason
        return f"{reason}; the old run is unchanged"

    def settle(self) -> None:
        """Replace the old run by a rerun that has ended, if it should."""
        if self.beside:
            with contextlib.suppress(Busy, OSError):  # the next launcher does it
                settle(self.results, self.cell.run_id)


def jobs_for(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    methods: Sequence[Path] = (),
    needed: Collection[str] = (),
) -> list[Job]:
    """Return the jobs of the cells and their ancestors, parents first; arguments as in `run_grid`.

    A committed run is done; it is trained only if a run to be trained needs its weights.
    """
    family, known = families(cells), Results(results)
    asked = pending(results, family)
    wanted = {*needed, *known.needed(cells, AGAIN, {*asked, *needed})}
    jobs = []
    for run_id, cell in family.items():
        committed = known[run_id].of_line and run_id not in {*wanted, *asked}
        again = frozenset() if committed else AGAIN
        jobs.append(Job(cell, results, data, again, tuple(methods), run_id in asked))
    return jobs


def prepare(job: Job) -> bool:
    """Prepare the directory under its lock; return False if the run is no longer wanted."""
    run = job.run
    with run.lock():
        if not job.wants(_recorded(run)):
            return False
        run.sweep()
        if job.beside:
            link_parents(job.results, job.cell)
    return True


def record(job: Job, **end: str | None) -> None:
    """Write the record of a run that could not write one itself."""
    run, cell = job.run, job.cell
    with contextlib.suppress(Busy, OSError), run.lock():  # taken over by another process; or the disk is full
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
