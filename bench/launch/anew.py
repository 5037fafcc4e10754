"""A run trained once more: beside the one that is there, whose place it takes when it is done.

Such an attempt is a results folder of its own, ``results/rerun/<run id>/``, which has the run's directory and
links to its ancestors. Asking for it (`begin`) makes the directory; whoever runs the cell next goes on with
it, as with any run that was interrupted, and puts it in the old one's place (`settle`). Whatever stops it
leaves the old run as it was. Removing the folder takes the wish back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.records import Results
from bench.rundir import Busy, RunDir, attempt, equal
from bench.stale import recorded_basis

#: How a run ended badly: it is not tried again unless that is asked for, and then from the start.
BAD = frozenset({"failed", "unreadable"})


def begin(results: Path, cells: Iterable[Cell], over: Collection[str], *, retry_failed: bool) -> list[str]:
    """Ask for runs to be trained once more, and return those for which it was not asked before.

    An attempt that was interrupted goes on; one that failed starts over. Where nothing is there to be kept,
    or the run is under way, none is made.

    Args:
        cells: all that may be meant, ancestors included.
        over: ids of the runs to be trained however they stand.
        retry_failed: also those that failed or cannot be read, and those whose attempt did.
    """
    cells, made = list(cells), []
    for run_id in pending(results, [cell.run_id for cell in cells]):
        with suppress(Busy, OSError):
            settle(results, run_id)  # its launcher was killed before it could
    runs = Results(results)
    for cell in cells:
        new, old = attempt(results, cell.run_id), runs[cell.run_id]
        tried, there = new.look()[0].status, old.local.status
        meant = cell.run_id in over or (retry_failed and not BAD.isdisjoint((tried, there)))
        nothing = there == "missing" and not old.committed
        if not meant or nothing or "running" in (tried, there) or tried in ("interrupted", "done"):
            continue
        withdraw(results, [cell.run_id])
        new.write_cell(cell)
        made.append(cell.run_id)
    return made


def withdraw(results: Path, run_ids: Iterable[str]) -> None:
    """Take back that runs are to be trained once more."""
    for run_id in run_ids:
        shutil.rmtree(results / "rerun" / run_id, ignore_errors=True)


def pending(results: Path, run_ids: Iterable[str]) -> set[str]:
    """Return which of the runs are to be trained once more, or are being so."""
    here = {path.name for path in (results / "rerun").glob("*/")}
    asked = {run_id: attempt(results, run_id).look()[0].status for run_id in here.intersection(run_ids)}
    return {run_id for run_id, status in asked.items() if status not in BAD | {"missing"}}


def lend(results: Path, cell: Cell) -> None:
    """Let an attempt find the cell's ancestors where it is."""
    for elder in cell.family()[:-1]:
        own, lent = RunDir(results, elder.run_id), attempt(results, cell.run_id).path.with_name(elder.run_id)
        lent.unlink(missing_ok=True)
        lent.symlink_to(os.path.relpath(own.path, lent.parent), target_is_directory=True)


def latest(results: Path, run_id: str) -> RunDir:
    """Return where a run was trained last: beside the old one as long as that stands, or where runs are."""
    new = attempt(results, run_id)
    return new if new.path.exists() else RunDir(results, run_id)


def settle(results: Path, run_id: str) -> None:
    """Put an attempt where runs are, if it is done, or failed as the old run did; else leave all as it is.

    An old run that says something else, though it was trained on the same data by the same code, or that
    cannot be read, is kept in ``results/rerun/old/``.

    Raises:
        Busy: another process runs the old run, or does the same.
    """
    new, own = attempt(results, run_id), RunDir(results, run_id)
    end, record = new.look()
    before, old = own.look()
    if not (end.status == "done" or end.status == before.status == "failed"):
        return
    if own.path.exists():
        with own.lock():
            if not new.path.exists():
                return
            aside = results / "rerun" / "old" / f"{run_id}.{len(kept(results, run_id))}"
            aside.parent.mkdir(exist_ok=True)
            own.path.rename(aside)
            new.path.rename(own.path)
        if before.status != "unreadable" and not _contradicts(old or {}, record or {}):
            shutil.rmtree(aside)
    else:
        own.path.parent.mkdir(exist_ok=True)
        new.path.rename(own.path)
    withdraw(results, [run_id])
    for folder in (results / "rerun" / "old", results / "rerun"):
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def kept(results: Path, run_id: str) -> list[Path]:
    """Return the directories of old runs that were kept, oldest first."""
    found = (results / "rerun" / "old").glob(f"{run_id}.*")
    return sorted(found, key=lambda path: int(path.suffix[1:]))


def _contradicts(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Tell whether two records of the same training on the same data say different things."""
    if not old.get("status") == new.get("status") == "done" or equal(old, new):
        return False
    one, other = (
        {"images": (record.get("data") or {}).get("fingerprint"), **recorded_basis(record)}
        for record in (old, new)
    )
    return all(one[name] == other[name] for name in one.keys() & other.keys() - {"data", "validation"})
