"""A run trained once more: what stops it leaves the old one as it was; when it is done it replaces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_fakes import hasty_run, make, starts
from launch_fakes import fake_run
from launch_fakes import make as make_slow

from bench.cell import Cell
from bench.launch import local
from bench.launch.rerun import begin, kept, link_parents, pending, settle, withdraw
from bench.records import Results
from bench.rundir import RunDir, State, attempt


class Place:
    """A results and a data folder; trouble comes only once it is let loose."""

    def __init__(self, root: Path) -> None:
        self.results, self.data = root / "results", root / "data"
        self.data.mkdir()
        self.heal = self.data / "heal"
        self.heal.touch()

    def launch(self, cells: list[Cell], worker: Any = hasty_run, **options: Any) -> dict[str, State]:
        return local.run_grid(cells, self.results, self.data, jobs=1, worker=worker, **options)

    def content(self, cell: Cell) -> dict[str, bytes]:
        home = RunDir(self.results, cell.run_id).path
        return {path.name: path.read_bytes() for path in home.iterdir() if path.name != "lock"}

    def reported(self, cell: Cell) -> str:
        return Results(self.results)[cell.run_id].state.reason or ""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("does", ["fail", "SIGSEGV"])
def test_an_attempt_that_fails_leaves_the_old_run_as_it_was(place: Place, does: str) -> None:
    cell, other = make("ce", does), make("ldam")
    place.launch([cell, other])
    before = place.content(cell)
    place.heal.unlink()
    reasons: list[str] = []

    def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        reasons.extend([str(detail["reason"])] if event == "failed" else [])

    ends = place.launch([cell, other], rerun=[cell.run_id, other.run_id], listen=listen)
    assert [reason.endswith("; the old run is unchanged") for reason in reasons] == [True]
    assert [ends[one.run_id].status for one in (cell, other)] == ["failed", "done"]
    assert place.content(cell) == before
    assert "trained once more: failed" in place.reported(cell)
    assert place.launch([cell])[cell.run_id].status == "done"  # which is the old one; nothing is tried again
    assert starts(place.data).count(cell.run_id) == 2

    place.heal.touch()
    assert place.launch([cell], retry_failed=True)[cell.run_id].status == "done"
    assert starts(place.data).count(cell.run_id) == 3
    assert place.reported(cell) == ""
    assert not (place.results / "rerun").exists()


def test_an_attempt_that_is_killed_goes_on_where_it_stopped_without_being_asked_for_again(
    place: Place,
) -> None:
    cell = make_slow("ce", "SIGKILL")
    place.launch([cell], fake_run)
    before = place.content(cell)
    place.heal.unlink()
    assert place.launch([cell], fake_run, rerun=[cell.run_id])[cell.run_id].status == "interrupted"
    assert place.content(cell) == before
    assert pending(place.results, [cell.run_id]) == {cell.run_id}
    assert "trained once more: interrupted, killed by signal 9" in place.reported(cell)
    place.heal.touch()
    assert place.launch([cell], fake_run)[cell.run_id].status == "done"
    assert RunDir(place.results, cell.run_id).read_record()["metrics"]["first_epoch"] == 2
    assert [path.name for path in (place.results / "rerun").iterdir()] == ["old"]


def test_a_stopped_launcher_leaves_the_old_run_and_the_attempt(place: Place) -> None:
    cell = make_slow("ce")
    place.launch([cell], fake_run)
    before = place.content(cell)

    def impatient(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        if event == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.launch([cell], fake_run, rerun=[cell.run_id], listen=impatient)
    assert place.content(cell) == before
    assert place.launch([cell], fake_run)[cell.run_id].status == "done"
    assert RunDir(place.results, cell.run_id).read_record()["metrics"]["first_epoch"] > 0


def finish(run: RunDir, cell: Cell, **more: Any) -> None:
    """Write a record as of a run that has ended."""
    content = {"cell": cell.model_dump(mode="json"), "status": "done", "reason": None}
    run.write_cell(cell)
    run.write_record(content | {"metrics": {"accuracy": 0.0}} | more)


def test_what_failed_twice_tells_the_newer_reason(tmp_path: Path) -> None:
    cell = make("ce")
    own, new = RunDir(tmp_path, cell.run_id), attempt(tmp_path, cell.run_id)
    finish(own, cell, status="failed", reason="first")
    assert begin(tmp_path, [cell], (), retry_failed=True) == [cell.run_id]
    finish(new, cell, status="failed", reason="second")
    settle(tmp_path, cell.run_id)
    assert own.read_record()["reason"] == "second"
    assert not (tmp_path / "rerun").exists()


def same(run: RunDir, cell: Cell) -> None:
    finish(run, cell)


def unreadable(run: RunDir, cell: Cell) -> None:
    run.record.write_text("{")


def other_number(run: RunDir, cell: Cell) -> None:
    finish(run, cell, metrics={"accuracy": 1.5})


def other_images(run: RunDir, cell: Cell) -> None:
    finish(run, cell, metrics={"accuracy": 1.5}, data={"fingerprint": {"train": "0" * 16}})


def other_code(run: RunDir, cell: Cell) -> None:
    finish(run, cell, metrics={"accuracy": 1.5}, environment={"rests_on": {"code": "0" * 16}})


@pytest.mark.parametrize(
    ("change", "kept"), [(same, 0), (unreadable, 1), (other_number, 1), (other_images, 0), (other_code, 0)]
)
def test_an_old_run_that_contradicts_or_cannot_be_read_is_kept(
    tmp_path: Path, change: Callable[[RunDir, Cell], None], kept: int
) -> None:
    cell = make("ce")
    own, new = RunDir(tmp_path, cell.run_id), attempt(tmp_path, cell.run_id)
    for round_ in (1, 2):
        finish(own, cell)
        change(own, cell)
        begin(tmp_path, [cell], [cell.run_id], retry_failed=False)
        finish(new, cell, environment={"rests_on": {"code": "1" * 16}})
        settle(tmp_path, cell.run_id)
        assert own.read_record()["metrics"] == {"accuracy": 0.0}
        old = sorted(tmp_path.glob("rerun/old/*"))
        assert [path.name for path in old] == [f"{cell.run_id}.{i}" for i in range(kept * round_)]
        assert (tmp_path / "rerun").exists() == bool(kept)


def test_an_old_run_is_kept_beside_others_of_which_the_first_was_removed(tmp_path: Path) -> None:
    cell = make("ce")
    own, new = RunDir(tmp_path, cell.run_id), attempt(tmp_path, cell.run_id)
    (tmp_path / "rerun" / "old" / f"{cell.run_id}.1" / "content").mkdir(parents=True)
    finish(own, cell)
    unreadable(own, cell)
    begin(tmp_path, [cell], [cell.run_id], retry_failed=False)
    finish(new, cell)
    settle(tmp_path, cell.run_id)
    assert [path.suffix for path in kept(tmp_path, cell.run_id)] == [".1", ".2"]


def test_an_end_that_its_launcher_could_not_put_in_place_is_by_the_next(tmp_path: Path) -> None:
    cell = make("ce")
    own, new = RunDir(tmp_path, cell.run_id), attempt(tmp_path, cell.run_id)
    finish(own, cell)
    begin(tmp_path, [cell], [cell.run_id], retry_failed=False)
    finish(new, cell, metrics={"accuracy": 7.0})
    with own.lock():
        begin(tmp_path, [cell], (), retry_failed=False)
        assert own.read_record()["metrics"] == {"accuracy": 0.0}
    begin(tmp_path, [cell], (), retry_failed=False)
    assert own.read_record()["metrics"] == {"accuracy": 7.0}


def test_a_child_is_trained_from_its_new_parent_or_not_at_all(place: Place) -> None:
    parent = make("ce", "raise")
    child = make("crt", parent=parent)
    place.launch([child])
    before = place.content(parent), place.content(child)
    place.heal.unlink()
    both = [parent.run_id, child.run_id]
    ends = place.launch([child], rerun=both)
    assert [ends[i].status for i in both] == ["failed", "blocked"]
    assert (place.content(parent), place.content(child)) == before
    assert starts(place.data)[2:] == [parent.run_id]
    late = make("tau", parent=parent)  # it could start from the old parent, which is about to be another
    assert place.launch([late])[late.run_id].status == "missing"

    place.heal.touch()
    ends = place.launch([child, late], retry_failed=True)
    assert {end.status for end in ends.values()} == {"done"}
    assert starts(place.data)[3:] == [parent.run_id, child.run_id, late.run_id]


def test_an_attempt_finds_its_ancestors_where_it_is(tmp_path: Path) -> None:
    eldest = make("ce")
    middle = make("crt", parent=eldest)
    cell = make("tau", parent=middle)
    for one in (eldest, middle, cell):
        finish(RunDir(tmp_path, one.run_id), one)
    begin(tmp_path, [cell], [cell.run_id], retry_failed=False)
    for _ in range(2):  # a job that is requeued finds the links there
        link_parents(tmp_path, cell)
    there = attempt(tmp_path, cell.run_id).path.parents[1]
    assert all(RunDir(there, one.run_id).is_done() for one in (eldest, middle))
    withdraw(tmp_path, [cell.run_id])
    assert all(RunDir(tmp_path, one.run_id).is_done() for one in (eldest, middle, cell))


def test_nothing_is_asked_for_twice_nor_where_nothing_is_to_be_kept(place: Place) -> None:
    done, fresh, running = make("ce"), make("ldam"), make("focal")
    place.launch([done])
    over = [cell.run_id for cell in (done, fresh, running)]
    with RunDir(place.results, running.run_id).lock():
        assert begin(place.results, [done, fresh, running], over, retry_failed=False) == [done.run_id]
        assert begin(place.results, [done, fresh, running], over, retry_failed=False) == []
    assert pending(place.results, over) == {done.run_id}
