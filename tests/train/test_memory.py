"""A batch that memory is too short for: the same step in pieces, or a record that names the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from method_cells import COUNTS, METHODS, batch_for, cell_of
from torch import Tensor

from bench import registry
from bench.cell import BackboneChoice, Cell, Optimizer, Protocol, Schedule
from bench.data.sets.catalogue import DATASETS
from bench.method import Batch, Clock
from bench.rundir import RunDir
from bench.train import loop
from bench.train.build import build
from bench.train.memory import Snapshot, divisible, pieces
from bench.train.run import run_cell
from methods.cross_entropy import CrossEntropy
from methods.ldam import LDAM

torch.set_num_threads(1)

VIT = BackboneChoice(name="vit_tiny_patch16_224", options={"img_size": 8, "patch_size": 2, "depth": 1})
CUT = [name for name, entry in METHODS.items() if divisible(build(cell_of(name), COUNTS))]


# -- whose loss is a mean over images -------------------------------------------------------------------
def mean_of_pieces(name: str, count: int, seed: int, at: int, **params: Any) -> tuple[Tensor, Tensor]:
    """The loss of a batch of seven, and the mean of its pieces' losses, weighted by their sizes."""
    method = build(cell_of(name, **params), COUNTS).eval()
    batch, clock = batch_for(method, [0, 4, 4, 8, 8, 2, 6], 16, seed), Clock(at, 10, at, 10)
    method.before_epoch(clock)
    method.before_step(clock, batch)
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    with torch.no_grad():
        whole = method.loss(batch)
        parts = [method.loss(piece) * len(piece.labels) / 7 for piece in pieces(batch, count)]
    assert all(torch.equal(tensor, before[key]) for key, tensor in method.state_dict().items())
    assert len(parts) == count
    return whole, torch.stack(parts).sum()


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("at", [0, 9], ids=["first epoch", "last epoch"])
def test_a_method_that_may_be_cut_has_a_mean_for_a_loss(name: str, at: int) -> None:
    for seed, count in enumerate([2, 3]):
        whole, mean = mean_of_pieces(name, count, seed, at)
        torch.testing.assert_close(mean, whole, rtol=1e-5, atol=1e-6)


def test_which_methods_may_be_cut() -> None:
    assert {"ce", "crt", "balanced_softmax", "vs", "ldam", "arcface", "focal", "cb_focal", "bbn"} <= set(CUT)
    unlike = {"cb_ce", "ce_drw", "ldam_drw", "mixup", "bcl", "paco", "rsg", "lade", "kcl", "causal_tde"}
    assert not unlike & set(CUT)
    for params, may in [({}, True), ({"reweight_from": 0.0}, False), ({"auxiliary": ("arcface",)}, True)]:
        assert divisible(build(cell_of("ce", **params), COUNTS)) is may
    whole, mean = mean_of_pieces("ce", 2, 0, 0, auxiliary=("arcface",))
    torch.testing.assert_close(mean, whole)
    by_size = {"reweight_from": 0.0, "reduction": "batch"}
    assert divisible(build(cell_of("ce", **by_size), COUNTS))
    torch.testing.assert_close(*mean_of_pieces("ce", 2, 0, 0, **by_size))
    weighted = by_size | {"auxiliary": ("arcface",)}
    assert not divisible(build(cell_of("ce", **weighted), COUNTS)), "the auxiliary heads' weights are"
    whole, mean = mean_of_pieces("ce_drw", 2, 0, 9)
    assert abs(whole - mean) > 1e-3, "or this test could not fail"


def test_pieces_are_whole_batches_of_their_own() -> None:
    bbn = build(cell_of("bbn"), COUNTS)
    batch = batch_for(bbn, [0, 4, 4, 8, 8, 2, 6], 16)
    cut = list(pieces(batch, 3))
    assert [len(piece.labels) for piece in cut] == [2, 2, 3]
    assert torch.equal(torch.cat([piece.images for piece in cut]), batch.images)
    assert torch.equal(
        torch.cat([p.extra.labels for p in cut if p.extra]), batch.extra.labels if batch.extra else None
    )
    assert [len(piece.labels) for piece in pieces(batch, 8)] == [2, 2, 3], "none of a single image"
    assert list(pieces(batch, 1)) == [batch]


# -- steps that are redone ------------------------------------------------------------------------------
class Room:
    """How many images at once there is memory for; `wanted` notes what was tried."""

    images = 1000
    wanted: list[int] = []  # noqa: RUF012 - one for all, emptied by the fixture


class Cramped(CrossEntropy):
    """Cross-entropy that finds memory short, its batch norm moved already."""

    def mean_over_images(self) -> bool:
        return True

    def loss(self, batch: Batch) -> Tensor:
        made = super().loss(batch)
        Room.wanted.append(len(batch.labels))
        if len(batch.labels) > Room.images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of it")
        return made


class CrampedHeir(Cramped):
    """A loss of its own, of which nothing is said."""


class CrampedLDAM(LDAM):
    """A method that does not say that its loss is a mean."""

    def loss(self, batch: Batch) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.fixture(autouse=True)
def crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.methods()
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    for name, build_it in {"cramped": Cramped, "heir": CrampedHeir, "cramped_ldam": CrampedLDAM}.items():
        registry.register(name, title=name, family="fake", venue="", year=2020, paper="")(build_it)
    monkeypatch.setattr(Room, "images", 1000)
    Room.wanted.clear()


def make(name: str = "cramped", backbone: BackboneChoice = VIT, optimizer: str = "sgd", **more: Any) -> Cell:
    return Cell(
        method=registry.find(name).choose(),
        dataset=DATASETS["digits"],
        imbalance_factor=20.0,
        backbone=backbone,
        protocol=Protocol(
            epochs=2,
            batch_size=96,
            optimizer=Optimizer(name=optimizer, lr=0.01),
            schedule=Schedule(per="step"),
            augmentation="none",
            evaluate_every=2,
        ),
        **{"mode": "exact"} | more,
    )


def run(cell: Cell, where: Path, **options: Any) -> dict[str, Any]:
    run_cell(cell, where, where, **options)
    return RunDir(where, cell.run_id).read_record()


def weights(cell: Cell, where: Path) -> Tensor:
    from safetensors.torch import load_file

    return torch.cat([t.flatten().float() for t in load_file(RunDir(where, cell.run_id).weights).values()])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_in_pieces_is_the_step(tmp_path: Path, optimizer: str) -> None:
    cell = make(optimizer=optimizer)
    ample = run(cell, tmp_path / "ample")
    Room.wanted.clear()
    Room.images = 30
    cramped = run(cell, tmp_path / "cramped")
    assert cramped["status"] == "done", cramped["traceback"]
    assert (ample["timing"]["micro_batches"], cramped["timing"]["micro_batches"]) == (1, 4)
    assert Room.wanted[:2] == [96, 48], "it tries halves, then quarters, and keeps to these"
    assert max(Room.wanted[2:]) == 24
    assert len(Room.wanted[2:]) == 2 * 5 * 4, "two epochs of five batches"
    if optimizer == "sgd":  # AdamW makes a step of what is but rounding, where a gradient is zero
        torch.testing.assert_close(weights(cell, tmp_path / "cramped"), weights(cell, tmp_path / "ample"))
    lines = [
        [line["loss"] for line in RunDir(tmp_path / w, cell.run_id).epochs()] for w in ("ample", "cramped")
    ]
    assert lines[0] == pytest.approx(lines[1], rel=1e-4)


def test_what_a_failed_attempt_moved_does_not_count(tmp_path: Path) -> None:
    cell, cnn = make(), BackboneChoice(name="resnet8_cifar")
    cell = make(backbone=cnn)
    Room.images = 50
    assert run(cell, tmp_path)["timing"]["micro_batches"] == 2
    from safetensors.torch import load_file

    state = load_file(RunDir(tmp_path, cell.run_id).weights)
    counts = {int(t) for key, t in state.items() if key.endswith("num_batches_tracked")}
    assert counts == {2 * 5 * 2}, "two epochs of five batches in two pieces each"


def test_memory_that_gets_short_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a resumed run goes on in pieces."""
    cell = make()

    def shorten(line: dict[str, Any]) -> None:
        Room.images = 50

    class Killed(BaseException):
        pass

    def save(training: loop.Training, epoch: int, own: Any = loop.save) -> None:
        own(training, epoch)
        raise Killed

    Room.images = 50
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", save)
        with pytest.raises(Killed):
            run(cell, tmp_path, checkpoint_seconds=0)
    Room.wanted.clear()
    assert run(cell, tmp_path)["timing"]["micro_batches"] == 2
    assert max(Room.wanted) == 48
    Room.images = 1000
    later = run(make(seed=1), tmp_path, report=shorten)
    assert later["timing"]["micro_batches"] == 2


@pytest.mark.parametrize(
    ("name", "mode", "room"), [("cramped", "exact", 1), ("heir", "exact", 50), ("cramped_ldam", "fast", 50)]
)
def test_where_it_cannot_be_helped_the_record_says_what_can_be_done(
    tmp_path: Path, name: str, mode: str, room: int
) -> None:
    Room.images = room
    record = run(make(name, mode=mode), tmp_path)
    assert record["status"] == "failed"
    reason = record["reason"]
    assert reason.startswith("memory ran out: lower protocol.batch_size (96)")
    assert "protocol.optimizer.lr" in reason
    assert "torchrun" in reason
    assert ("mode: fast" in reason) == (mode == "exact")
    assert "CUDA out of memory" in reason
    assert "\n" not in reason


def test_beside_other_runs_it_is_theirs_to_make_room(tmp_path: Path) -> None:
    from bench.train.run import steps

    Room.images = 50
    with pytest.raises(torch.OutOfMemoryError):
        list(steps(make(), tmp_path, tmp_path, "cpu", lambda line: None, at_once=2))


def test_a_snapshot_puts_back_what_was_and_empties_what_is_new() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    snapshot = Snapshot(list(model.parameters()))
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    state = [t for made in optimizer.state.values() for t in made.values()]
    assert not all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    snapshot.restore([*model.parameters(), *state])
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert state
    assert not any(t.any() for t in state)
