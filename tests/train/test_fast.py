"""Fast mode does what exact mode does: the same draws and steps, whether a step is replayed or not."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fast_runs import assert_same, lines, make_cell, needs_gpu, training, weights

from bench import registry
from bench.captured import Graphs, at_once, play_for, warm_up
from bench.cell import Cell, Optimizer
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import InMemory, Split, load
from bench.errors import BenchError
from bench.method import Batch
from bench.rundir import RunDir
from bench.train.interleave import Turns
from bench.train.precision import wants_bfloat16
from bench.train.run import run_cell

torch.set_num_threads(1)

DIGITS = DATASETS["digits"]
METHODS = registry.methods()


# -- replaying a step ---------------------------------------------------------------------------------
def test_warming_up_leaves_no_trace():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    images, counter = torch.randn(8, 4), torch.zeros((), dtype=torch.int64)

    def step() -> None:
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
        counter.add_(1)

    def moves():
        yield counter
        yield from model.parameters()
        yield from model.buffers()
        for state in optimizer.state.values():
            yield from state.values()

    before = [tensor.clone() for tensor in moves()]
    warm_up(step, moves)
    after = list(moves())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=False))
    assert len(after) > len(before)  # the optimiser made its state, and there it is as before a first step
    assert all(not tensor.any() for tensor in after[len(before) :])


def eagerly(key: Any, function: Any, moves: Any, *, lasting: bool = False) -> Any:
    """Not replayed, but with what else a replayed run has: its rates in tensors."""
    return function()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_replayed_run_is_the_run(split, tmp_path, tapes, optimizer):
    settings = Optimizer(name=optimizer, lr=0.05 if optimizer == "sgd" else 0.002)
    cell = make_cell("ldam_drw", epochs=5, optimizer=settings, augmentation="autoaugment_cutout")
    assert_same(training(cell, split, tmp_path, play=tapes), training(cell, split, tmp_path, play=eagerly))
    assert len(tapes.recorded) == 2 + 2 + 1 + 1  # batches, steps, test images and their scores, by size


def test_batches_made_several_at_once_are_the_batches(split, tmp_path, tapes, monkeypatch):
    monkeypatch.setattr("bench.data.feed.memory.IMAGES_AT_ONCE", 160)
    cell = make_cell("bcl", batch_size=48, augmentation="autoaugment_cutout")
    made, plain = training(cell, split, tmp_path, play=tapes), training(cell, split, tmp_path)
    made.loader._rows = made.loader._rows.new_empty(3 * 48)  # as where making them is replayed
    assert_same(made, plain)
    assert {size for kind, size, *_ in tapes.recorded if kind == "batch"} == {144, len(split.labels) % 144}


CAPTURED = {
    entry.build: name
    for name, entry in METHODS.items()
    if entry.build.trains and entry.build.capturable and not entry.build.needs_backbone
}


@pytest.mark.parametrize("name", CAPTURED.values())
def test_a_method_that_says_so_can_be_captured(name, tmp_path, tapes):
    cell, few = make_cell(name, batch_size=48), load(DIGITS.model_copy(update={"n_max": 16}), 8.0, Path())
    assert_same(training(cell, few, tmp_path, play=tapes), training(cell, few, tmp_path, play=eagerly))
    steps = [key for key in tapes.recorded if key[0] == "learn"]
    assert {size for _, _, size in steps} == {48, len(few.labels) - 48}


@pytest.mark.parametrize("name", ["bccl", "rsg"])
def test_a_method_that_cannot_be_captured_learns_from_replayed_batches(name, split, tmp_path, tapes):
    cell = make_cell(name, batch_size=256)
    replayed, plain = training(cell, split, tmp_path, play=tapes), training(cell, split, tmp_path)
    assert replayed.play is at_once
    assert_same(replayed, plain)
    assert {key[0] for key in tapes.recorded} == {"batch", "test"}


def test_a_replayed_run_goes_on_from_the_checkpoint_of_one_that_was_not(split, tmp_path, tapes):
    cell = make_cell("ldam_drw", epochs=4)
    straight = training(cell, split, tmp_path / "straight", play=eagerly)
    expected = lines(straight)
    killed = training(cell, split, tmp_path / "killed")
    killed.checkpoint_seconds = 0
    for clock in killed.steps(lambda line: None):
        if clock.epoch == 2:
            break
    resumed = training(cell, split, tmp_path / "killed", play=tapes)
    reported = lines(resumed)
    assert [line["epoch"] for line in reported] == [2, 3]
    for mine, its in zip(reported, expected[2:], strict=True):
        assert mine == pytest.approx(its, rel=0.05)
    assert all(isinstance(group["lr"], torch.Tensor) for group in resumed.optimizer.param_groups)
    assert resumed.optimizer.param_groups[0]["lr"].item() == pytest.approx(expected[-1]["lr"])


def test_the_mode_and_the_device_decide():
    cpu = torch.device("cpu")
    assert play_for("fast", cpu) is at_once
    assert play_for("exact", torch.device("cuda")) is at_once
    assert not wants_bfloat16("exact", "cuda")
    assert not wants_bfloat16("exact", "cpu")
    assert wants_bfloat16("fast", "cuda")
    has = torch.cpu.get_capabilities()
    assert wants_bfloat16("fast", "cpu") == bool(has.get("avx512_bf16") or has.get("amx_bf16"))


# -- fast against exact -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ce", "bcl", "cmo"])
def test_both_modes_see_the_same_draws(name, split, tmp_path):
    protocol = {"augmentation": "autoaugment_cutout"}
    runs = [training(make_cell(name, mode, **protocol), split, tmp_path / mode) for mode in ("exact", "fast")]
    epochs = []
    for run in runs:
        draws = run.method.draws(np.random.default_rng(0), run.loader.size)
        epochs.append(list(run.loader.epoch(1, 2, run.method.sampler(1, 2), draws)))
    for exact, fast in zip(*epochs, strict=True):
        for one, other in zip(tensors(exact), tensors(fast), strict=True):
            assert torch.equal(one, other)


def tensors(batch: Batch) -> list[torch.Tensor]:
    own = [*batch.views, batch.labels, batch.positions, *batch.draws.values()]
    return own + (tensors(batch.extra) if batch.extra else [])


def first_losses(
    cell: Cell, split: Split, where: Path, device: str = "cpu", play: Any = None, steps: int = 6
) -> list[float]:
    """The losses of the first steps; an epoch's end is not among them."""
    run, turns = training(cell, split, where, device, play), Turns[str](device)
    turns.add("it", run.steps(lambda line: None))
    sums = [0.0]
    for _ in range(steps):
        assert not list(turns.turn())
        if device == "cuda":
            torch.cuda.synchronize()  # it trains on another stream
        sums.append(run.total_loss.item())
    return np.diff(sums).tolist()


@pytest.mark.parametrize("name", ["ce", "ldam_drw", "bcl"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_first_steps_differ_by_rounding_alone(name, bfloat16, split, tmp_path, monkeypatch):
    exact = first_losses(make_cell(name, "exact"), split, tmp_path)
    monkeypatch.setattr("bench.train.loop.wants_bfloat16", lambda mode, device: bfloat16)
    fast = first_losses(make_cell(name, "fast"), split, tmp_path)
    assert len(exact) == 6
    assert fast == pytest.approx(exact, rel=0.05 if bfloat16 else 1e-3)
    assert fast != exact


def test_over_seeds_both_modes_score_the_same(split, tmp_path):
    scores = {
        mode: [accuracy(trained("ce", mode, seed), tmp_path) for seed in range(3)]
        for mode in ("exact", "fast")
    }
    gap = np.mean(scores["exact"]) - np.mean(scores["fast"])
    noise = np.sqrt(sum(np.var(values, ddof=1) / len(values) for values in scores.values()))
    assert np.mean(scores["exact"]) > 70
    assert abs(gap) < 3 * noise + 1


def trained(name: str, mode: str, seed: int) -> Cell:
    return make_cell(name, mode, epochs=8, augmentation="none").model_copy(update={"seed": seed})


def accuracy(cell: Cell, where: Path, device: str = "cpu") -> float:
    run_cell(cell, where, where, device)
    record = RunDir(where, cell.run_id).read_record()
    assert record["status"] == "done", record["traceback"]
    return float(record["metrics"]["accuracy"])


# -- on a GPU -----------------------------------------------------------------------------------------
@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ["ce", "ldam_drw", "bcl", "dscl"])
def test_graphs_replay_what_would_be_done_at_once(name, split, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "bench.data.feed.memory.IMAGES_AT_ONCE", 160
    )  # three pieces an epoch, the last a smaller one
    cell = make_cell(name, epochs=3, batch_size=32, augmentation="autoaugment_cutout")
    graphs = first_losses(cell, split, tmp_path / "graphs", "cuda", steps=13)
    plain = first_losses(cell, split, tmp_path / "plain", "cuda", eagerly, steps=13)
    assert graphs[:2] == pytest.approx(plain[:2], rel=1e-2)
    assert graphs == pytest.approx(plain, rel=0.1)


@pytest.mark.gpu
@needs_gpu
def test_a_recording_trains_nothing(split, tmp_path):
    run, turns = training(make_cell(), split, tmp_path, "cuda"), Turns[str]("cuda")
    assert isinstance(run.play, Graphs)
    before, statistics = weights(run), [b.clone() for b in run.method.buffers()]
    batches = run.loader.epoch(0, 2, "shuffle")

    def record() -> Any:
        batch = next(batches)
        warm_up(lambda: run._learn(batch, 1), run._changed)
        yield

    turns.add("it", record())
    assert not list(turns.turn())
    torch.cuda.synchronize()
    assert torch.equal(weights(run), before)
    assert all(torch.equal(a, b) for a, b in zip(statistics, run.method.buffers(), strict=True))
    assert run.total_loss.item() == 0


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_gpu_trains_as_the_cpu_does(split, tmp_path, optimizer):
    settings = Optimizer(name=optimizer, lr=0.05 if optimizer == "sgd" else 0.002)
    cell = make_cell("ldam_drw", epochs=5, optimizer=settings)
    there, here = (lines(training(cell, split, tmp_path / d, d)) for d in ("cuda", "cpu"))
    assert [line["lr"] for line in there] == [line["lr"] for line in here]
    assert [line["loss"] for line in there] == pytest.approx([line["loss"] for line in here], rel=0.15)


@pytest.mark.gpu
@needs_gpu
def test_exact_mode_on_a_gpu_is_float32(split, tmp_path):
    gpu, cpu = (first_losses(make_cell("ce", "exact"), split, tmp_path / d, d) for d in ("cuda", "cpu"))
    assert gpu == pytest.approx(cpu, rel=1e-3)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", [n for n, e in METHODS.items() if not e.build.needs_backbone])
def test_every_method_runs_on_a_gpu(name, tmp_path):
    for member in make_cell(name, epochs=2).family():
        accuracy(member, tmp_path, "cuda")


def ask_the_device(where: Path) -> None:
    run = training(make_cell(), load(DIGITS, 20.0, Path()), where, "cuda")
    run.method.criterion = lambda outputs, labels: outputs.sum() * outputs.sum().item()
    with pytest.raises(BenchError, match="capturable = False"):
        lines(run)
    assert Graphs.spoilt


@pytest.mark.gpu
@needs_gpu
def test_a_step_that_asks_the_device_names_the_remedy(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=ask_the_device, args=(tmp_path,))
    process.start()  # of its own: no recording would succeed in this one any more
    process.join()
    assert process.exitcode == 0


@pytest.mark.gpu
@needs_gpu
def test_over_seeds_a_gpu_scores_the_same_in_both_modes(tmp_path):
    scores = [
        [accuracy(trained("ce", mode, seed), tmp_path, "cuda") for seed in range(3)]
        for mode in ("exact", "fast")
    ]
    noise = np.sqrt(sum(np.var(values, ddof=1) / len(values) for values in scores))
    assert abs(np.mean(scores[0]) - np.mean(scores[1])) < 3 * noise + 1


@pytest.mark.gpu
@needs_gpu
def test_a_cifar_sized_run_beside_another_takes_less_than_a_gigabyte(tmp_path):
    rng = np.random.default_rng(0)
    counts = np.maximum(500 * 0.01 ** (np.arange(100) / 99), 1).astype(int)
    labels = np.repeat(np.arange(100), counts)
    images, tests = (
        torch.from_numpy(rng.integers(0, 256, (n, 3, 32, 32), np.uint8)) for n in (50_000, 10_000)
    )
    big = InMemory(
        dataset=DATASETS["cifar100"],
        images=images,
        test_images=tests,
        positions=np.arange(len(labels)),
        labels=labels,
        test_labels=rng.integers(0, 100, 10_000),
        class_counts=counts,
        class_names=tuple(map(str, range(100))),
        fingerprint={},
        key="noise",
    )
    cell = make_cell(backbone="resnet32_cifar", batch_size=128, augmentation="autoaugment_cutout", epochs=1)
    cell = cell.model_copy(update={"dataset": big.dataset})
    runs = [cell, cell.model_copy(update={"seed": 1})]
    first, second = (training(one, big, tmp_path, "cuda") for one in runs)
    lines(first)  # with what the libraries try once
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    lines(second)
    assert torch.cuda.memory_reserved() - before < 2**30
