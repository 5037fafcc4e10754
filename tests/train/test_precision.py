"""A run goes on only in the precision that its checkpoint was trained in, and its record says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import make_cell

from bench.cell import Cell
from bench.launch import local
from bench.records import Results
from bench.rundir import RunDir
from bench.train.checkpoint import read_checkpoint, write_checkpoint
from bench.train.precision import wants_bfloat16
from bench.train.run import run_cell

OURS, OTHER = (("float32", "bfloat16"), ("bfloat16", "float32"))[wants_bfloat16("fast", "cpu")]


class Stop(BaseException):
    """What a run does not catch."""


def stop(line: dict[str, Any]) -> None:
    if line["epoch"] == 1:
        raise Stop


def stopped(cell: Cell, results: Path) -> RunDir:
    """Train two of three epochs; the first is in the checkpoint."""
    with pytest.raises(Stop):
        run_cell(cell, results, results, report=stop, checkpoint_seconds=0)
    return RunDir(results, cell.run_id)


def change(run: RunDir, cell: Cell, turned: bool) -> None:
    """Make a checkpoint one of the other precision, or one that does not know its own."""
    state = read_checkpoint(run.checkpoint, cell.id, "cpu")
    assert state is not None
    known = state.pop("bfloat16")
    write_checkpoint(run.checkpoint, cell.id, state | ({"bfloat16": not known} if turned else {}))


def epochs_made(cell: Cell, results: Path) -> list[int]:
    seen: list[int] = []
    run_cell(cell, results, results, report=lambda line: seen.append(line["epoch"]))
    return seen


def test_a_checkpoint_of_another_precision_waits_and_others_go_on(tmp_path: Path) -> None:
    cell, other = make_cell(), make_cell(epochs=1)
    run = stopped(cell, tmp_path)
    change(run, cell, turned=True)
    before = run.checkpoint.read_bytes()

    ends = local.run_grid([cell, other], tmp_path, tmp_path, jobs=1)
    assert [ends[one.run_id].status for one in (cell, other)] == ["interrupted", "done"]
    reason = ends[cell.run_id].reason or ""
    assert f"trained in {OTHER}, and this machine computes in {OURS}" in reason
    assert "--force" in reason
    assert "\n" not in reason
    assert run.checkpoint.read_bytes() == before
    assert len(run.epochs()) == 2

    change(run, cell, turned=True)  # as on a machine like the first
    assert epochs_made(cell, tmp_path) == [1, 2]
    assert run.is_done()
    assert set(Results(tmp_path).table()["precision"]) == {OURS}


def test_a_run_that_waits_starts_over_when_asked(tmp_path: Path) -> None:
    cell = make_cell()
    run = stopped(cell, tmp_path)
    change(run, cell, turned=True)
    ends = local.run_grid([cell], tmp_path, tmp_path, jobs=1, rerun=[cell.run_id])
    assert ends[cell.run_id].status == "done"
    assert len(run.epochs()) == 3


def test_a_checkpoint_that_does_not_know_its_precision_goes_on(tmp_path: Path) -> None:
    cell = make_cell()
    change(stopped(cell, tmp_path), cell, turned=False)
    assert epochs_made(cell, tmp_path) == [1, 2]
