"""A run trained once more: beside the old one, whose place it takes only when it is done.

It is trained in a results folder of its own, ``results/rerun/``, so that whatever stops it leaves what was
there. Parents whose weights are here are lent to it; those whose weights are not are trained anew with it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.cell import Cell
from bench.records import Busy, equal
from bench.rundir import RunDir


def beside(results: Path, cell: Cell) -> Path:
    """Return the results folder to train a cell in, its parents there as far as their weights are here.

    Raises:
        Busy: the run is running now.
    """
    place = results / "rerun"
    if RunDir(results, cell.run_id).is_running():
        raise Busy(f"{cell.run_id}: another process is running it")
    (place / "runs").mkdir(parents=True, exist_ok=True)
    for parent in cell.family()[:-1]:
        own, lent = RunDir(results, parent.run_id), RunDir(place, parent.run_id).path
        if lent.is_symlink():
            lent.unlink()
        if own.is_done() and own.weights.exists() and not lent.exists():
            lent.symlink_to(os.path.relpath(own.path, lent.parent), target_is_directory=True)
    return place


def take_over(results: Path, cell: Cell) -> list[Path]:
    """Put a finished run, and the parents that were trained with it, where runs are.

    An old run that says something else is kept below ``results/rerun/old``; those are returned.
    """
    place, replaced = results / "rerun", []
    for member in cell.family():
        new, old = RunDir(place, member.run_id), RunDir(results, member.run_id)
        if new.path.is_symlink() or not new.is_done():
            continue
        state, record = old.look()
        if state.status == "running":
            raise Busy(f"{member.run_id}: another process is running it; the new one is {new.path}")
        aside = place / "old" / f"{member.run_id}.{len(list(place.glob(f'old/{member.run_id}.*')))}"
        if old.path.exists():
            aside.parent.mkdir(exist_ok=True)
            old.path.rename(aside)
        old.path.parent.mkdir(exist_ok=True)
        new.path.rename(old.path)
        if state.status in ("done", "unreadable") and not (record and equal(record, old.read_record())):
            replaced.append(aside)
        elif aside.exists():
            shutil.rmtree(aside)
    return replaced


def spent(results: Path) -> None:
    """Remove the folder for reruns if nothing is left in it but what was lent."""
    place = results / "rerun"
    for lent in place.glob("runs/*"):
        if lent.is_symlink():
            lent.unlink()
    for folder in (place / "runs", place / "old", place):
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
