"""Reruns: a run trained again beside the old one, which it replaces when it is done.

A rerun is a results folder, ``results/rerun/<run id>/``, with the run's directory and links to its ancestors.
`begin` makes the directory. The next launcher of the cell continues it, like any interrupted run, and
`settle` moves it to where the old run was. Whatever stops it leaves the old run unchanged. Removing the
folder cancels it.
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

#: Statuses of a run that is tried again only on request, and then from the start.
BAD = frozenset({"failed", "unreadable"})


def begin(results: Path, cells: Iterable[Cell], rerun: Collection[str], *, retry_failed: bool) -> list[str]:
    """Make reruns, and return the ids of those that are new.

    An interrupted rerun continues; a failed one starts over. None is made of a run that is running, or of
    which there is nothing to keep.

    Args:
        cells: all candidates, ancestors included.
        rerun: ids of the runs to train again, whatever their status.
        retry_failed: also those that failed or cannot be read, or whose rerun did.
    """
    cells, made = list(cells), []
    for run_id in pending(results, [cell.run_id for cell in cells]):
        with suppress(Busy, OSError):
            settle(results, run_id)  # its launcher was killed before it could
    runs = Results(results)
    for cell in cells:
        new, old = attempt(results, cell.run_id), runs[cell.run_id]
        tried, there = new.look()[0].status, old.local.status
        meant = cell.run_id in rerun or (retry_failed and not BAD.isdisjoint((tried, there)))
        nothing = there == "missing" and not old.committed
        if not meant or nothing or "running" in (tried, there) or tried in ("interrupted", "done"):
            continue
        withdraw(results, [cell.run_id])
        new.write_cell(cell)
        made.append(cell.run_id)
    return made


def withdraw(results: Path, run_ids: Iterable[str]) -> None:
    """Cancel reruns."""
    for run_id in run_ids:
        shutil.rmtree(results / "rerun" / run_id, ignore_errors=True)


def pending(results: Path, run_ids: Iterable[str]) -> set[str]:
    """Return which of the runs have a rerun that is to run, or runs."""
    here = {path.name for path in (results / "rerun").glob("*/")}
    asked = {run_id: attempt(results, run_id).look()[0].status for run_id in here.intersection(run_ids)}
    return {run_id for run_id, status in asked.items() if status not in BAD | {"missing"}}


def link_parents(results: Path, cell: Cell) -> None:
    """Link the cell's ancestors into the folder of its rerun."""
    for parent in cell.family()[:-1]:
        own, link = (
            RunDir(results, parent.run_id),
            attempt(results, cell.run_id).path.with_name(parent.run_id),
        )
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(own.path, link.parent), target_is_directory=True)


def latest(results: Path, run_id: str) -> RunDir:
    """Return the directory of a run's rerun, if there is one, or its own."""
    new = attempt(results, run_id)
    return new if new.path.exists() else RunDir(results, run_id)


def settle(results: Path, run_id: str) -> None:
    """Replace a run by its rerun if that is done, or if both failed; else change nothing.

    The old run is kept in ``results/rerun/old/`` if it cannot be read, or if its record differs although data
    and code are the same.

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
            number = max((int(path.suffix[1:]) for path in kept(results, run_id)), default=-1) + 1
            aside = results / "rerun" / "old" / f"{run_id}.{number}"
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
    """Whether two records of the same training on the same data differ."""
    if not old.get("status") == new.get("status") == "done" or equal(old, new):
        return False
    one, other = (
        {"images": (record.get("data") or {}).get("fingerprint"), **recorded_basis(record)}
        for record in (old, new)
    )
    return all(one[name] == other[name] for name in one.keys() & other.keys() - {"data", "validation"})
