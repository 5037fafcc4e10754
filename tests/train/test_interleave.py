"""Several runs in one process: each ends as if it were alone, well or badly."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from launch_fakes import EPOCHS, fake_run, make, note, notes, statuses, trouble
from small_runs import make_cell

from bench.captured import Graphs
from bench.cell import Cell
from bench.errors import BenchError, memory_ran_out
from bench.launch import local
from bench.launch.process import Child, Slot, Worker, _serve
from bench.method import Clock
from bench.rundir import RunDir, equal
from bench.train.interleave import Turns, is_own_fault
from bench.train.run import run_cell, steps
from bench.train.trial import Trial, most_that_pay

torch.set_num_threads(1)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def together(cells: list[Cell], where: Path, device: str = "cpu") -> None:
    turns = Turns[str](device)
    for cell in cells:
        turns.add(cell.run_id, steps(cell, where, where, device, lambda line: None, len(cells)))
    for _, error in turns.take():
        assert error is None


def behind(error: Exception, cause: Exception) -> Exception:
    error.__context__ = cause
    return error


# -- turns --------------------------------------------------------------------------------------------
def test_each_takes_a_step_in_turn_and_may_join_later():
    seen = []

    def run(name: str, count: int) -> Iterator[None]:
        for number in range(count):
            seen.append(f"{name}{number}")
            yield

    turns = Turns[str]("cpu")
    turns.add("a", run("a", 3))
    turns.add("b", run("b", 1))
    assert list(turns.turn()) == []
    turns.add("c", run("c", 2))
    assert list(turns.turn()) == [("b", None)]
    assert list(turns.take()) == [("a", None), ("c", None)]
    assert seen == ["a0", "b0", "a1", "c0", "a2", "c1"]


def test_one_that_raises_is_out_and_the_others_go_on():
    def bad() -> Iterator[None]:
        yield
        raise ValueError("it had to")

    turns = Turns[str]("cpu")
    turns.add("bad", bad())
    turns.add("good", iter([None] * 5))
    ends = dict(turns.take())
    assert isinstance(ends["bad"], ValueError)
    assert ends["good"] is None


# -- real runs ----------------------------------------------------------------------------------------
def test_runs_together_are_the_runs_alone(tmp_path):
    parent = make_cell("ce", epochs=1)
    run_cell(parent, tmp_path / "together", tmp_path)
    run_cell(parent, tmp_path / "alone", tmp_path)
    cells = [make_cell("ldam_drw", epochs=4), make_cell("crt", parent, epochs=3), make_cell("bcl", epochs=2)]
    together(cells, tmp_path / "together")
    for cell in cells:
        run_cell(cell, tmp_path / "alone", tmp_path)
        one, other = (RunDir(tmp_path / place, cell.run_id) for place in ("together", "alone"))
        assert one.read_record()["status"] == "done"
        assert equal(one.read_record(), other.read_record())
        assert one.weights.read_bytes() == other.weights.read_bytes()
        assert one.read_record()["timing"]["runs_at_once"] == 3


def test_a_run_that_diverges_leaves_its_record_and_its_neighbours_alone(tmp_path):
    good, bad = make_cell(epochs=3), make_cell(epochs=3, lr=1e9)
    together([bad, good], tmp_path / "together")
    run_cell(good, tmp_path / "alone", tmp_path)
    of_bad = RunDir(tmp_path / "together", bad.run_id).read_record()
    assert of_bad["status"] == "failed"
    assert "lower protocol.optimizer.lr" in of_bad["reason"]
    records = [RunDir(tmp_path / place, good.run_id).read_record() for place in ("together", "alone")]
    assert equal(*records)


@pytest.mark.parametrize("at_once", [1, 2])
def test_memory_that_neighbours_took_is_no_fault_of_a_run(tmp_path, at_once):
    def report(line: dict[str, Any]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cell = make_cell(epochs=2)
    run = steps(cell, tmp_path, tmp_path, "cpu", report, at_once)
    if at_once == 1:
        list(run)
        assert RunDir(tmp_path, cell.run_id).read_record()["status"] == "failed"
    else:
        with pytest.raises(torch.OutOfMemoryError):
            list(run)
        assert not RunDir(tmp_path, cell.run_id).record.exists()


def test_a_gpu_that_answers_no_more_is_no_fault_of_a_run(monkeypatch):
    def dead() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    assert is_own_fault(ValueError())
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", dead)
    assert not is_own_fault(ValueError())


def test_a_recording_that_failed_leaves_no_sound_process(monkeypatch):
    monkeypatch.setattr(Graphs, "spoilt", True)
    assert not is_own_fault(ValueError())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        behind(RuntimeError("CUDA error: operation failed"), torch.OutOfMemoryError("CUDA out of memory")),
    ],
)
def test_memory_runs_out_in_many_words(error):
    assert memory_ran_out(error)
    assert not is_own_fault(error)
    assert not memory_ran_out(behind(RuntimeError("shapes differ"), ValueError()))


# -- how many -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rates", "places"),
    [
        ({1: 10.0, 2: 10.5}, 1),
        ({1: 10.0, 2: 19.0, 4: 25.0, 8: 26.0}, 4),
        ({1: 10.0, 2: 19.0, 4: None}, 2),
        ({1: None, 2: None}, 1),
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}, 16),
    ],
)
def test_more_runs_share_a_gpu_as_long_as_that_pays_and_fits(rates, places):
    assert most_that_pay(rates.__getitem__) == places


def test_a_trial_times_steps_and_keeps_nothing(tmp_path, monkeypatch):
    trial = Trial(make_cell(epochs=1), tmp_path / "data", "cpu", tmp_path / "scratch")
    monkeypatch.setattr("bench.train.trial.TIMED", 3)
    assert all((trial.rate(runs) or 0) > 0 for runs in (1, 2))
    assert len(trial.turns.runs) == 2
    assert not list(tmp_path.rglob("record.json"))


def test_a_trial_counts_steps_and_not_the_turns_in_which_a_gpu_catches_up(tmp_path, monkeypatch):
    gpu = SimpleNamespace(now=0.0, free=0.0)

    class Training:
        """A step takes the GPU 2 ms and the host 0.1 ms, as does a look whether the GPU is done."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def test_logits(self) -> None:
            pass

        def steps(self, report: object) -> Iterator[Clock]:
            for step in count():
                gpu.now += 1e-4
                gpu.free = max(gpu.free, gpu.now) + 2e-3
                clock, mine = Clock(step // 5, 10**6, step, 5 * 10**6), gpu.free
                yield clock
                while step % 5 == 4 and gpu.now < mine:
                    gpu.now += 1e-4
                    yield clock

    monkeypatch.setattr("bench.train.trial.Training", Training)
    monkeypatch.setattr("bench.train.trial.time", SimpleNamespace(monotonic=lambda: gpu.now))
    monkeypatch.setattr("bench.train.trial._wait", lambda device: setattr(gpu, "now", max(gpu.now, gpu.free)))
    trial = Trial(make_cell(epochs=1), tmp_path / "data", "cpu", tmp_path / "scratch")
    assert [trial.rate(runs) for runs in (1, 2, 4)] == pytest.approx([500] * 3, rel=0.05)


# -- the launcher's processes ---------------------------------------------------------------------------
Report = Callable[[dict[str, Any]], None]


def noting(
    cell: Cell, results: Path, data: Path, device: str, report: Report, at_once: int
) -> Iterator[object]:
    """A fake run that notes each of its turns with its process, and has trouble every time it is tried.

    A "crowd" has memory alone and not beside others.
    """
    does = str(cell.method.params["does"])
    for number, step in enumerate(fake_run(cell, results, data, device, report, at_once)):
        note(data, "turns", f"{os.getpid()}:{cell.seed}")
        if does == "crowd" and at_once > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if number == 1:
            trouble(does.removeprefix("always "))
        yield step


@pytest.fixture
def launch(tmp_path, monkeypatch) -> Callable[..., dict[str, Any]]:
    (tmp_path / "data").mkdir()
    reported: list[tuple[str, str]] = []

    def launched(cells: list[Cell], **options: Any) -> dict[str, Any]:
        def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
            reported.append((cell.run_id, event))

        options = {"gpus": ("0",), "per_gpu": 3, "worker": noting} | options
        return local.run_grid(cells, tmp_path, tmp_path / "data", listen=listen, **options)

    launched.reported = reported  # type: ignore[attr-defined]
    return launched


def turns_of(data: Path) -> dict[str, list[str]]:
    """By process, the seeds in the order of their turns."""
    by_process: dict[str, list[str]] = {}
    for line in notes(data, "turns"):
        process, seed = line.split(":")
        by_process.setdefault(process, []).append(seed)
    return by_process


def test_one_process_drives_the_runs_of_a_gpu(tmp_path, launch):
    cells = [make("ce", seed=seed) for seed in range(5)]
    assert statuses(launch(cells)) == {"done": 5}
    (order,) = turns_of(tmp_path / "data").values()
    assert len(order) == 5 * EPOCHS
    first = order[: 3 * EPOCHS]
    assert set(first) >= {"0", "1", "2"}
    assert first != sorted(first)  # in turn, not one after the other
    assert order[-1] == "4"  # the later ones took the places of those that had ended
    assert all(RunDir(tmp_path, cell.run_id).log.read_text() == "printed by ce\n" for cell in cells)


def test_each_gpu_has_a_process_and_jobs_bound_them_all(tmp_path, launch):
    assert statuses(launch([make("ce", seed=s) for s in range(4)], gpus=("0", "1"), per_gpu=2)) == {"done": 4}
    assert len(turns_of(tmp_path / "data")) == 2
    launch([make("ldam", seed=s) for s in range(3)], jobs=1)
    running = 0
    for _, event in launch.reported[-30:]:
        running += {"started": 1, "done": -1}.get(event, 0)
        assert running <= 1


@pytest.mark.parametrize(
    ("does", "status"), [("SIGSEGV", "failed"), ("exit", "failed"), ("SIGKILL", "interrupted")]
)
def test_runs_of_a_dead_process_go_on_one_by_one(tmp_path, launch, does, status):
    cells = [make("bad", f"always {does}", seed=0), *(make("ce", seed=seed) for seed in (1, 2, 3, 4))]
    ends = launch(cells)
    assert statuses(ends) == {status: 1, "done": 4}
    assert ends[cells[0].run_id].status == status
    for cell in cells[1:]:
        assert RunDir(tmp_path, cell.run_id).read_record()["metrics"]["first_epoch"] in (0, 1, 2)
    suspects = {run_id for run_id, event in launch.reported if event == "interrupted"}
    assert {cell.run_id for cell in cells[:3]} == suspects
    alone = [set(seeds) for seeds in turns_of(tmp_path / "data").values()][1:]
    assert {"1"} in alone
    assert {"2"} in alone
    counts = Counter(run_id for run_id, event in launch.reported if event == "done")
    assert set(counts.values()) == {1}


def test_a_run_without_memory_goes_on_alone_and_harms_no_other(tmp_path, launch):
    cells = [make("big", "crowd", seed=0), make("ce", seed=1), make("ce", seed=2)]
    assert statuses(launch(cells)) == {"done": 3}
    first, second = turns_of(tmp_path / "data").values()
    assert set(first) == {"0", "1", "2"}
    assert set(second) == {"0"}


def test_a_run_that_raises_beside_others_has_its_record(tmp_path, launch):
    cells = [make("bad", "always raise", seed=0), make("ce", seed=1)]
    ends = launch(cells)
    assert "OSError: no space left" in (ends[cells[0].run_id].reason or "")
    assert ends[cells[1].run_id].status == "done"
    assert len(turns_of(tmp_path / "data")) == 1


def test_children_wait_for_their_parents_in_the_same_process(tmp_path, launch):
    parent = make("ce", seed=0)
    cells = [make("crt", parent=parent, seed=1), make("tau", parent=parent, seed=2), make("ce", seed=3)]
    assert statuses(launch(cells)) == {"done": 4}
    (order,) = turns_of(tmp_path / "data").values()
    assert order.index("1") > max(i for i, seed in enumerate(order) if seed == "0")


def test_the_room_on_a_gpu_is_tried_where_it_is_not_given(tmp_path, launch):
    # no trial can be made of the fake cells, so there is room for one at a time
    assert statuses(launch([make("ce", seed=s) for s in range(3)], per_gpu=None)) == {"done": 3}
    (order,) = turns_of(tmp_path / "data").values()
    assert order == sorted(order)


@pytest.fixture
def tried(monkeypatch) -> dict[str, Callable[[], int]]:
    """What a trial of each method comes to; processes are forked, so that they see it."""
    ends: dict[str, Callable[[], int]] = {}

    def forking(worker: Worker) -> Callable[[Slot], Child]:
        def start(slot: Slot) -> Child:
            ours, theirs = context.Pipe()
            process: Any = context.Process(target=_serve, args=(worker, slot, os.getcwd(), theirs, ""))
            process.start()
            theirs.close()
            return Child(slot, process, ours, slot.room or 1)

        return start

    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(local, "starter", forking)
    monkeypatch.setattr("bench.train.trial.runs_at_once", lambda cell, *_: ends[cell.method.name]())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # CUDA does not survive a fork
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    return ends


def test_a_run_that_cannot_be_tried_leaves_the_trial_to_the_next(tmp_path, launch, tried):
    def cannot() -> int:
        raise BenchError("it trains nothing")

    tried |= {"ncm": cannot, "bad": cannot, "ce": lambda: 3}
    cells = [make("ncm", seed=0), make("bad", "raise", seed=1), *(make("ce", seed=s) for s in range(2, 7))]
    assert statuses(launch(cells, per_gpu=None)) == {"done": 6, "failed": 1}
    (order,) = turns_of(tmp_path / "data").values()
    first, later = order[: EPOCHS + 1], order[EPOCHS + 1 :]
    assert first == sorted(first), "one at a time"
    assert later != sorted(later), "in turn, as there is room for three"


def test_a_trial_that_spoilt_its_process_costs_the_run_nothing(tmp_path, launch, tried):
    def spoilt() -> int:
        Graphs.spoilt = True
        return 2

    tried |= {"big": spoilt, "ce": lambda: 3}
    cells = [make("big", seed=0), make("ce", seed=1), make("ce", seed=2)]
    for _ in range(2):
        assert statuses(launch(cells, per_gpu=None, rerun=[cell.run_id for cell in cells])) == {"done": 3}
    assert Counter(notes(tmp_path / "data", "starts")) == {cell.run_id: 2 for cell in cells}
    assert all(len(set(seeds)) == 1 or "0" not in seeds for seeds in turns_of(tmp_path / "data").values())


# -- on a GPU -------------------------------------------------------------------------------------------
@pytest.mark.gpu
@needs_gpu
def test_runs_share_a_gpu_and_score_as_alone(tmp_path):
    cells = [make_cell(name, epochs=6, seed=seed) for name in ("ce", "bcl") for seed in (0, 1)]
    together(cells, tmp_path / "together", "cuda")
    for cell in cells:
        run_cell(cell, tmp_path / "alone", tmp_path, "cuda")
        one, other = (RunDir(tmp_path / place, cell.run_id).read_record() for place in ("together", "alone"))
        assert one["status"] == other["status"] == "done", one["traceback"] or other["traceback"]
        assert one["metrics"]["accuracy"] == pytest.approx(other["metrics"]["accuracy"], abs=6)


@pytest.mark.gpu
@needs_gpu
def test_a_trial_on_a_gpu_finds_room_and_gives_its_memory_back(tmp_path):
    from bench.train.trial import runs_at_once

    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    assert runs_at_once(make_cell(), tmp_path, "cuda") >= 1
    assert torch.cuda.memory_reserved() <= before + 64 * 2**20


@pytest.mark.gpu
@needs_gpu
def test_real_cells_share_a_gpu_from_the_launcher(tmp_path):
    cells = [make_cell(epochs=3, seed=seed) for seed in range(4)]
    ends = local.run_grid(cells, tmp_path, tmp_path, gpus=("0",), per_gpu=4)
    assert statuses(ends) == {"done": 4}, {end.reason for end in ends.values()}
