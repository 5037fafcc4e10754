"""The launcher, on fake runs: order, isolation, resumption, two launchers at once, Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launch_fakes import EPOCHS, fake_run, make, notes, statuses
from project import HELPERS, ROOT
from rich.console import Console

from bench.cell import Cell
from bench.launch import local
from bench.launch.progress import watch
from bench.rundir import RunDir, State


class Place:
    """A results and a data folder, and what happened there."""

    def __init__(self, root: Path) -> None:
        self.results, self.data = root / "results", root / "data"
        self.data.mkdir()
        self.events: list[tuple[str, str]] = []

    def launch(self, cells: list[Cell], **options: Any) -> dict[str, State]:
        self.events.clear()
        options = {"jobs": 2, "worker": fake_run} | options

        def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
            self.events.append((cell.run_id, event))

        return local.run_grid(cells, self.results, self.data, listen=listen, **options)

    def record(self, cell: Cell) -> dict[str, Any]:
        return RunDir(self.results, cell.run_id).read_record()

    def heal(self) -> None:
        (self.data / "heal").touch()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_parents_run_before_their_children_and_only_once(place: Place) -> None:
    elder = make("ce")
    middle = make("crt", parent=elder)
    cells = [make("tau", parent=middle), make("lws", parent=elder), middle]
    assert statuses(place.launch(cells)) == {"done": 4}
    assert len(set(notes(place.data, "starts"))) == len(notes(place.data, "starts")) == 4
    order = [run_id for run_id, event in place.events if event in ("started", "done")]
    for cell in cells:
        assert cell.parent is not None
        assert order.index(cell.run_id) > max(
            i for i, run_id in enumerate(order) if run_id == cell.parent.run_id
        )


def test_what_is_done_is_kept(place: Place) -> None:
    cells = [make("ce"), make("ldam")]
    place.launch(cells)
    assert statuses(place.launch(cells)) == {"done": 2}
    assert len(notes(place.data, "starts")) == 2
    assert place.events == []


def test_runs_go_at_once_and_hear_of_epochs(place: Place) -> None:
    cells = [make("ce", seed=seed) for seed in range(2)]
    place.launch(cells)
    reported = [event for _, event in place.events]
    assert reported[:4] == ["planned", "planned", "started", "started"]
    assert Counter(reported)["epoch"] == 2 * EPOCHS


@pytest.mark.parametrize(
    ("does", "status", "reason"),
    [
        ("fail", "failed", "it had to"),
        ("raise", "failed", "OSError: no space left"),
        ("exit", "failed", "exit code 3"),
        ("SIGSEGV", "failed", "signal 11 (Segmentation fault)"),
        ("SIGKILL", "interrupted", "signal 9 (Killed)"),
    ],
)
def test_a_run_that_dies_harms_no_other(place: Place, does: str, status: str, reason: str) -> None:
    bad, others = make("bad", does), [make("ce", seed=seed) for seed in range(3)]
    end = place.launch([bad, *others])
    assert end[bad.run_id].status == status
    assert reason in (end[bad.run_id].reason or "")
    assert all(end[cell.run_id].status == "done" for cell in others)
    record = place.record(bad)
    assert record["cell"]["method"]["name"] == "bad"
    assert ("Traceback" in (record["traceback"] or "")) == (does in ("fail", "raise"))
    assert ('File "bench/launch/process.py", line' in (record["traceback"] or "")) == (does == "raise")
    assert str(Path.cwd()) not in (record["traceback"] or "")


def test_children_of_a_failed_run_are_blocked(place: Place) -> None:
    bad = make("bad", "exit")
    child = make("crt", parent=bad)
    grandchild = make("tau", parent=child)
    end = place.launch([grandchild, child, make("ce")])
    assert statuses(end) == {"failed": 1, "blocked": 2, "done": 1}
    assert not RunDir(place.results, child.run_id).path.exists()
    assert (grandchild.run_id, "blocked") in place.events


def test_an_interrupted_run_goes_on_where_it_stopped(place: Place) -> None:
    cell = make("ce", "SIGKILL")
    place.launch([cell])
    place.heal()
    assert statuses(place.launch([cell])) == {"done": 1}
    assert place.record(cell)["metrics"]["first_epoch"] == 2


def test_a_failed_run_is_tried_again_only_when_asked_and_then_starts_over(place: Place) -> None:
    bad = make("bad", "exit")
    cells = [make("crt", parent=bad)]
    place.launch(cells)
    place.heal()
    assert statuses(place.launch(cells)) == {"failed": 1, "blocked": 1}
    assert statuses(place.launch(cells, retry_failed=True)) == {"done": 2}
    assert place.record(bad)["metrics"]["first_epoch"] == 0


def test_a_failed_retry_is_not_tried_twice(place: Place) -> None:
    cell = make("bad", "raise")
    place.launch([cell])
    place.launch([cell], retry_failed=True)
    assert len(notes(place.data, "starts")) == 2


def test_a_record_that_cannot_be_read_is_kept_until_a_retry(place: Place) -> None:
    cell = make("ce")
    place.launch([cell])
    RunDir(place.results, cell.run_id).record.write_text("{")
    assert statuses(place.launch([cell])) == {"unreadable": 1}
    assert statuses(place.launch([cell], retry_failed=True)) == {"done": 1}


def test_force_starts_the_cells_over_but_not_their_ancestors(place: Place) -> None:
    elder = make("ce")
    child = make("crt", parent=elder)
    place.launch([child])
    run = RunDir(place.results, child.run_id)
    run.logits.write_bytes(b"old")
    assert statuses(place.launch([child], rerun=[child.run_id])) == {"done": 2}
    assert Counter(notes(place.data, "starts")) == {elder.run_id: 1, child.run_id: 2}
    assert place.record(child)["metrics"]["first_epoch"] == 0
    assert not run.logits.exists()


def test_what_a_run_prints_goes_to_its_log(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    cell = make("ce")
    place.launch([cell])
    assert "printed by ce" in RunDir(place.results, cell.run_id).log.read_text()
    assert "printed by" not in capfd.readouterr().out


def test_runs_are_given_their_gpu_and_one_thread(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [make("ce", seed=seed) for seed in range(6)]
    monkeypatch.setattr(local, "cores", lambda: 12)
    place.launch(cells, jobs=None, gpus=("3", "5"), per_gpu=2)
    environments = [place.record(cell)["environment"] for cell in cells]
    assert {e["gpu"] for e in environments} == {"3", "5"}
    assert {e["device"] for e in environments} == {"cuda"}
    assert {e["threads"] for e in environments} == {"1"}
    assert {e["readers"] for e in environments} == {"3"}  # of 12 cores, for 2 runs on each of 2 GPUs
    place.launch([make("cpu")])
    assert place.record(make("cpu"))["environment"]["device"] == "cpu"


def test_a_gpu_that_can_begin_nothing_costs_no_run(place: Place) -> None:
    cells = [make("ce", "fits elsewhere", seed=seed) for seed in range(5)]
    end = place.launch(cells, jobs=None, gpus=("0", "1"), per_gpu=1)
    assert statuses(end) == {"done": 5}
    assert {place.record(cell)["environment"]["gpu"] for cell in cells} == {"1"}
    moved = [run_id for run_id, event in place.events if event == "interrupted"]
    assert len(moved) == 1, "the GPU is asked once"


def test_a_run_that_fits_on_no_gpu_fails_and_the_gpus_are_used_on(place: Place) -> None:
    large = make("ce", "fits nowhere")
    place.launch([large], jobs=None, gpus=("0", "1"), per_gpu=1)
    assert place.record(large)["reason"] == "memory ran out"
    cells = [make("ldam", "fits nowhere", seed=0), *(make("ce", seed=seed) for seed in range(1, 7))]
    end = place.launch(cells, jobs=None, gpus=("0", "1"), per_gpu=1)
    assert statuses(end) == {"failed": 1, "done": 6}
    assert {place.record(cell)["environment"]["gpu"] for cell in cells[1:]} == {"0", "1"}


def test_gpus_that_can_all_begin_nothing_leave_a_record_of_each_run(place: Place) -> None:
    cells = [make("ce", "fits nowhere", seed=seed) for seed in range(4)]
    end = place.launch(cells, jobs=None, gpus=("0", "1"), per_gpu=1)
    assert statuses(end) == {"failed": 4}


def test_gpus_may_be_numbers(place: Place) -> None:
    cell = make("ce")
    place.launch([cell], jobs=None, gpus=[1])
    assert place.record(cell)["environment"]["gpu"] == "1"


def test_the_last_run_of_a_grid_needs_no_trial(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [make("ce", seed=seed) for seed in range(3)]
    place.launch(cells[:2])
    rooms, slots = [], local.slots_for
    monkeypatch.setattr(local, "slots_for", lambda *given: rooms.append(given[2]) or slots(*given))
    place.launch(cells, jobs=None, gpus=("3",))
    assert rooms == [1]


def test_a_run_that_another_process_holds_is_left_to_it(place: Place) -> None:
    elder = make("ce")
    child = make("crt", parent=elder)
    with RunDir(place.results, elder.run_id).lock():
        end = place.launch([child, make("ldam")])
    assert end[make("ldam").run_id].status == "done"
    assert not notes(place.data, "starts").count(elder.run_id)
    assert (child.run_id, "missing") in place.events


def test_runs_write_where_their_launcher_stands(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    local.run_grid([make("ce")], Path("here"), place.data, worker=fake_run)
    assert RunDir(tmp_path / "here", make("ce").run_id).record.exists()


def test_methods_files_are_loaded_where_they_are_needed(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("print('loaded')\n")
    place.launch([make("ce")], methods=[file])
    assert "loaded" in RunDir(place.results, make("ce").run_id).log.read_text()


LAUNCHER = """
import signal, sys
from pathlib import Path
from bench.launch.local import run_grid
from launch_fakes import fake_run, make

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a script put in the background
    results, data, does = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    cells = [make("ce", does, seed=seed) for seed in range(6)]
    run_grid(cells + [make("crt", parent=cells[0])], results, data, jobs=2, worker=fake_run)
"""


def start_launcher(place: Place, tmp_path: Path, does: str) -> subprocess.Popen[str]:
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    return subprocess.Popen(
        [sys.executable, str(script), str(place.results), str(place.data), does],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HELPERS}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C goes to a whole process group
    )


def test_two_launchers_share_a_grid_and_no_cell_runs_twice(place: Place, tmp_path: Path) -> None:
    launchers = [start_launcher(place, tmp_path, "well") for _ in range(2)]
    errors = [launcher.communicate(timeout=600)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], errors
    assert sorted(set(notes(place.data, "ends"))) == sorted(notes(place.data, "ends"))
    assert len(notes(place.data, "starts")) == 7


def test_what_another_launcher_finished_is_reported_as_done(place: Place) -> None:
    cells, out = [make("ce", seed=seed) for seed in range(2)], io.StringIO()
    with watch({}, Console(file=out, width=200), place.results) as listen:

        def other(cell: Cell, event: str, detail: dict[str, Any]) -> None:
            if event == "started" and cell == cells[0]:
                local.run_grid(cells[1:], place.results, place.data, worker=fake_run)
            listen(cell, event, detail)

        local.run_grid(cells, place.results, place.data, jobs=1, worker=fake_run, listen=other)
    assert out.getvalue().count("53.00 %") == 2
    assert len(notes(place.data, "starts")) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_launcher_leaves_a_state_to_go_on_from(
    place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    launcher = start_launcher(place, tmp_path, "slow")
    wait_for(lambda: len(notes(place.data, "slow")) == 2)
    os.killpg(launcher.pid, number)
    error = launcher.communicate(timeout=600)[1]
    begun = set(notes(place.data, "starts"))
    assert len(begun) == 2
    wait_for(lambda: not any(RunDir(place.results, run_id).is_running() for run_id in begun))
    assert {RunDir(place.results, run_id).look()[0].status for run_id in begun} == {"interrupted"}
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in error
        assert error.count("Traceback") == 1  # the launcher's own, none of its runs'
    place.heal()
    cells = [make("ce", "slow", seed=seed) for seed in range(6)]
    assert statuses(place.launch(cells)) == {"done": 6}


def test_runs_end_when_only_their_launcher_is_killed(place: Place, tmp_path: Path) -> None:
    launcher = start_launcher(place, tmp_path, "slow")
    wait_for(lambda: len(notes(place.data, "slow")) == 2)
    launcher.kill()
    launcher.communicate(timeout=600)
    begun = notes(place.data, "starts")
    wait_for(lambda: not any(RunDir(place.results, run_id).is_running() for run_id in begun))
    assert notes(place.data, "starts") == begun


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about in 30 s")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_tells_how_each_run_ended(place: Place, terminal: bool) -> None:
    cells = [make("ce"), make("bad", "raise"), make("bad", "SIGKILL", seed=1)]
    cells.append(make("crt", parent=cells[1]))
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with watch({cells[0].run_id: "Cross-entropy"}, console, place.results) as listen:
        local.run_grid(cells, place.results, place.data, jobs=2, worker=fake_run, listen=listen)
    text = out.getvalue()
    assert "Cross-entropy digits if10 seed 0" in text
    assert "53.00 %" in text
    assert "OSError: no space left" in text
    assert "killed by signal 9" in text
    assert "blocked" in text
    if not terminal:
        ends = [line for line in text.splitlines() if not line.startswith(" ")]
        assert [line.split()[0] for line in ends].count("failed") == 1
        assert len(ends) == 4
        assert "\x1b" not in text
