"""Images that stay on disk: every view is made as the papers make it, whoever reads the files."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import photo_trees
import pytest
import torch
from photo_trees import IMAGENET, everything, loader_of, pixels, same, split_of
from PIL import Image

from bench.cell import Cell
from bench.cores import WORKERS
from bench.data.augment import policy
from bench.data.feed.framing import SEEN, picture_policy, resized_crop_box, test_frame
from bench.errors import BenchError
from bench.method import View
from bench.randomness import generator
from bench.records import Results
from bench.registry import find
from bench.rundir import RunDir, equal
from bench.train.evaluate import evaluate_run
from bench.train.loop import Training
from bench.train.run import run_cell
from bench.vision import torchvision

torch.set_num_threads(1)
test_frame.__test__ = False  # it is no test, for all its name

CE = find("ce").choose()
SEED = photo_trees.SEED


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four layouts, side by side."""
    root = tmp_path_factory.mktemp("data")
    for make in photo_trees.LAYOUTS.values():
        make(root)
    return root


# -- frames -------------------------------------------------------------------------------------------
def test_a_test_sees_what_torchvision_shows(data: Path) -> None:
    transforms, loader = torchvision.transforms, loader_of(data)
    size = IMAGENET.image_size
    papers = transforms.Compose(
        [
            transforms.Resize(round(size / SEEN)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    listed = [
        line.rsplit(" ", 1) for line in (data / "imagenet_lt/ImageNet_LT_test.txt").read_text().split("\n")
    ]
    expected = torch.stack(
        [papers(Image.open(data / "imagenet_lt" / path).convert("RGB")) for path, _ in listed]
    )
    images, labels = (torch.cat(parts) for parts in zip(*loader.test(), strict=True))
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert labels.tolist() == [int(label) for _, label in listed]
    assert round(224 / SEEN) == 256


@pytest.mark.parametrize("size", [(500, 375), (60, 200), (90, 90)])
def test_resized_crops_are_torchvision_s(size: tuple[int, int]) -> None:
    """Both draw for themselves, so that only the distributions can be compared."""
    n, rule = 3000, picture_policy("resized_crop_flip")
    rows = rule.draw(np.random.default_rng(1), n, 224)
    ours = np.array(
        [
            resized_crop_box(
                size, *(rows[f"frame.{name}"][i] for name in ("area", "ratio", "offset")), rule.crop.ratio
            )
            for i in range(n)
        ]
    )
    width, height = ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] <= size).all()
    blank, random_crop = Image.new("L", size), torchvision.transforms.RandomResizedCrop
    torch.manual_seed(1)
    theirs = np.array([random_crop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    for one, other in (
        (ours[:, 1], theirs[:, 0]),
        (ours[:, 0], theirs[:, 1]),
        (height, theirs[:, 2]),
        (width, theirs[:, 3]),
    ):
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            edge = np.quantile(other, share)
            assert (one <= edge).mean() == pytest.approx((other <= edge).mean(), abs=0.05)


def test_shapes_are_drawn_on_a_logarithmic_scale() -> None:
    ratio = picture_policy("simclr").draw(np.random.default_rng(1), 3000, 224)["frame.ratio"]
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.005)
    assert ratio.min() == pytest.approx(3 / 4, abs=0.01)
    assert ratio.max() == pytest.approx(4 / 3, abs=0.01)


@pytest.mark.parametrize("size", [(1000, 50), (50, 1000), (70, 70)])
def test_where_no_try_fits_the_middle_is_taken(size: tuple[int, int]) -> None:
    none_fits, offset = np.full(10, 2.0), np.array([0.9, 0.1])
    box = resized_crop_box(size, none_fits, np.ones(10), offset, (3 / 4, 4 / 3))
    blank = Image.new("L", size)
    top, left, height, width = torchvision.transforms.RandomResizedCrop.get_params(
        blank, [2.0, 2.0], [3 / 4, 4 / 3]
    )
    assert box == (left, top, left + width, top + height)


def test_a_training_view_is_the_crop_that_was_drawn(data: Path) -> None:
    loader = loader_of(data, View("resized_crop_flip"), drop_last=True)
    split, rule = split_of(data), picture_policy("resized_crop_flip")
    tables = rule.draw(generator("view", 0, SEED, 1), loader.size, 32)
    batches = list(loader.epoch(1, 2, "shuffle"))
    assert [len(batch.labels) for batch in batches] == [8, 8]
    for row, (image, position) in enumerate(
        zip(torch.cat([b.images for b in batches]), torch.cat([b.positions for b in batches]), strict=True)
    ):
        picture = split.pictures.open(int(position))
        area, ratio, offset = (tables[f"frame.{name}"][row] for name in ("area", "ratio", "offset"))
        box = resized_crop_box(picture.size, area, ratio, offset, (3 / 4, 4 / 3))
        expected = np.asarray(picture.crop(box).resize((32, 32), Image.Resampling.BILINEAR))
        if tables["flip.chosen"][row]:
            expected = expected[:, ::-1]
        assert np.array_equal(pixels(IMAGENET, image).permute(1, 2, 0), expected)
        assert split.labels[position] == loader.split.labels[position]


@pytest.mark.parametrize("name", ["none", "crop_flip", "autoaugment_cutout", "randcls", "simclr_blur"])
def test_what_follows_the_frame_is_as_in_memory(data: Path, name: str) -> None:
    loader, rule = loader_of(data, View(name)), picture_policy(name)
    tables = rule.draw(generator("view", 0, SEED, 0), loader.size, 32)
    batch = next(loader.epoch(0, 2, "shuffle"))
    frames = []
    for row, position in enumerate(batch.positions.tolist()):
        picture = split_of(data).pictures.open(position)
        frame = rule.frame(picture, {key: value[row] for key, value in tables.items()}, 32)
        frames.append(torch.from_numpy(np.array(frame)).permute(2, 0, 1))
    rest = {key: torch.from_numpy(value[:8]) for key, value in tables.items() if not key.startswith("frame.")}
    expected = rule.apply(torch.stack(frames), rest)
    assert torch.equal(pixels(IMAGENET, batch.images), expected)
    starts = policy(name).geometry_ops[: len(policy(name).geometry_ops) - len(rule.geometry_ops)]
    assert [type(op).__name__ for op in starts] == (
        ["ResizedCrop"] if name.startswith(("rand", "sim")) else []
    )


def test_timm_s_transforms_go_by_the_row_alone(data: Path) -> None:
    picture, rule = split_of(data).pictures.open(0), picture_policy("timm_randaugment")
    tables = rule.draw(np.random.default_rng(0), 6, 32)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    frames = [np.asarray(rule.frame(picture, {"frame.seed": seed}, 32)) for seed in tables["frame.seed"]]
    again = [np.asarray(rule.frame(picture, {"frame.seed": seed}, 32)) for seed in tables["frame.seed"]]
    assert all(map(np.array_equal, frames, again))
    assert len({frame.tobytes() for frame in frames}) == 6
    assert frames[0].shape == (32, 32, 3)
    assert torch.equal(torch.get_rng_state(), before[0]), "what all share is left as it was"
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


# -- batches ------------------------------------------------------------------------------------------
def test_an_epoch_depends_on_seed_and_epoch_alone(data: Path) -> None:
    views = (View("simclr"), View("timm_randaugment"))
    first, second = loader_of(data, *views), loader_of(data, *views)
    zero, one = (everything(list(first.epoch(epoch, 2, "shuffle"))) for epoch in (0, 1))
    assert same(zero, everything(list(second.epoch(0, 2, "shuffle"))))
    assert same(one, everything(list(second.epoch(1, 2, "shuffle"))))
    assert not same(zero, one)


def test_a_batch_speaks_of_one_image_in_all_its_parts(data: Path) -> None:
    loader = loader_of(data, View("none"), View("none"), extra="reverse")
    draws = {"lam": np.arange(loader.size)}
    batches = list(loader.epoch(0, 2, "shuffle", draws))
    assert [len(batch.labels) for batch in batches] == [8, 8, 3]
    assert loader.steps == 3
    assert torch.cat([batch.draws["lam"] for batch in batches]).tolist() == list(range(19))
    assert sorted(torch.cat([batch.positions for batch in batches]).tolist()) == list(range(19))
    for batch in batches:
        assert batch.extra is not None
        for part in (batch, batch.extra):
            assert torch.equal(part.views[0], part.views[1])
            assert torch.equal(loader.images_at(part.positions), part.images)
            assert part.labels.tolist() == loader.split.labels[part.positions].tolist()
    assert not same(everything(batches), everything([b.extra for b in batches if b.extra]))


def test_a_second_batch_has_draws_of_its_own(data: Path) -> None:
    for batch in loader_of(data, View("resized_crop_flip"), extra="shuffle").epoch(0, 2, "shuffle"):
        assert batch.extra is not None
        assert batch.extra.positions.tolist() != batch.positions.tolist()


def test_validation_and_training_images_are_shown_as_for_a_test(data: Path) -> None:
    loader = loader_of(data)
    images, labels = zip(*loader.val(), strict=True)
    assert torch.cat(images).shape == (4, 3, 32, 32)
    assert sorted(torch.cat(labels).tolist()) == [0, 1, 2, 3]
    images, labels = zip(*loader.train_eval(), strict=True)
    assert torch.cat(labels).tolist() == loader.split.labels.tolist()
    assert torch.equal(torch.cat(images), loader.images_at(torch.arange(19)))
    assert not list(loader_of(data, dataset=photo_trees.small("inaturalist2018")).val()), "it has none"


def test_patches_are_cut_from_a_view_before_its_colours(data: Path) -> None:
    query = View("resized_crop_flip_jitter")
    patch = View("none", patch_of=0, boxes="where", size=8)
    corner = np.tile([0.0, 0.0, 0.25, 0.25], (19, 1))
    plain = next(loader_of(data, View("resized_crop_flip")).epoch(0, 2, "shuffle"))
    batch = next(loader_of(data, query, patch).epoch(0, 2, "shuffle", {"where": corner}))
    assert torch.equal(batch.views[1], plain.images[..., :8, :8])
    assert not torch.equal(batch.views[0], plain.images)


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "2")


@pytest.mark.usefixtures("two_workers")
def test_workers_change_nothing_and_survive_broken_images_and_signals(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = (View("randcls"), View("timm_randaugment"), View("none", patch_of=0, boxes="where", size=8))
    draws = {"where": np.sort(generator("boxes").random((19, 4)), axis=1)[:, [0, 1, 2, 3]]}
    with_workers = loader_of(data, *views, extra="reverse")
    monkeypatch.setenv(WORKERS, "0")
    without = loader_of(data, *views, extra="reverse")
    assert (with_workers.workers, without.workers) == (2, 0)
    for epoch in range(2):
        assert same(
            everything(list(with_workers.epoch(epoch, 2, "shuffle", draws))),
            everything(list(without.epoch(epoch, 2, "shuffle", draws))),
        )
        assert same([i for i, _ in with_workers.test()], [i for i, _ in without.test()])
    next(with_workers.epoch(0, 2, "shuffle", draws))  # given up, as a failed run does
    assert same([i for i, _ in with_workers.val()], [i for i, _ in without.val()])

    broken = with_workers.split.pictures.file(0)  # type: ignore[attr-defined]
    whole = broken.read_bytes()
    try:
        broken.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            BenchError, match=rf"{broken.name}: not a readable image \(OSError: .*\); replace it$"
        ):
            list(with_workers.epoch(0, 2, "shuffle", draws))
    finally:
        broken.write_bytes(whole)
    assert same([i for i, _ in with_workers.test()], [i for i, _ in without.test()])

    readers = multiprocessing.active_children()
    for reader in readers:
        os.kill(reader.pid or 0, signal.SIGTERM)  # as a cluster tells every process of a job
    assert same([i for i, _ in with_workers.test()], [i for i, _ in without.test()])
    for reader in readers:
        os.kill(reader.pid or 0, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(with_workers.epoch(0, 2, "shuffle", draws))


@pytest.mark.parametrize("asked", ["many", "-1", "300", "²"])
def test_a_wrong_number_of_workers_is_reported(
    data: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKERS, asked)
    with pytest.raises(BenchError, match=f"{WORKERS}=.* should be a number of processes"):
        loader_of(data)


# -- whole runs ---------------------------------------------------------------------------------------
def run(cell: Cell, data: Path, results: Path) -> dict[str, Any]:
    run_cell(cell, results, data)
    record = RunDir(results, cell.run_id).read_record()
    assert record["status"] == "done", record["reason"]
    return record


@pytest.mark.parametrize("name", photo_trees.LAYOUTS)
def test_a_run_trains_on_each_layout(data: Path, tmp_path: Path, name: str) -> None:
    cell = photo_trees.cell(photo_trees.small(name), find("balanced_softmax").choose())
    record = run(cell, data, tmp_path)
    assert record["data"]["class_counts"] == list(photo_trees.COUNTS)
    assert record["data"]["test_counts"] == [2, 2, 2, 2]
    assert record["data"]["title"] == cell.dataset.title
    again = evaluate_run(RunDir(tmp_path, cell.run_id), data)
    assert again["per_class"] == record["metrics"]["per_class"]


def test_the_epoch_that_validation_chooses_stands_beside_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = photo_trees.cell(IMAGENET, CE, epochs=4)
    scores = iter([25.0, 75.0, 50.0, 75.0])
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_validation_accuracy", lambda self: next(scores))
        record = run(cell, data, tmp_path / "fake")
    lines = RunDir(tmp_path / "fake", cell.run_id).epochs()
    chosen = record["best_on_validation"]
    assert (chosen["epoch"], chosen["validation_accuracy"]) == (1, 75.0), "the earliest of equals"
    assert chosen["accuracy"] == lines[1]["accuracy"], "what it scores on the test set"
    assert record["metrics"]["epoch"] == 3
    row = Results(tmp_path / "fake").table().iloc[0]
    assert (row.chosen_epoch, row.chosen_accuracy) == (1, lines[1]["accuracy"])

    trained = run(cell, data, tmp_path)
    assert equal(trained | {"best_on_validation": chosen}, record), "validation changes nothing else"
    assert trained["best_on_validation"]["validation_accuracy"] in (0.0, 25.0, 50.0, 75.0, 100.0)
    without = run(photo_trees.cell(photo_trees.small("inaturalist2018"), CE, epochs=1), data, tmp_path)
    assert without["best_on_validation"] is None
    older = {key: value for key, value in without.items() if key != "best_on_validation"}
    older["cell"] = {key: value for key, value in older["cell"].items() if value is not None}
    assert equal(without, older), "a record from before there were such things"
    assert not equal(without, older | {"metrics": {}})


def test_a_folder_is_scored_through_the_frame_of_a_test(data: Path, tmp_path: Path) -> None:
    cell = photo_trees.cell(IMAGENET, CE, epochs=1)
    record = run(cell, data, tmp_path)
    score = evaluate_run(RunDir(tmp_path, cell.run_id), data, data / "imagenet_lt/val")
    assert score["ece"] == pytest.approx(record["metrics"]["ece"], abs=1e-3)
    assert score["per_class"] == record["metrics"]["per_class"]


@pytest.mark.parametrize("name", ["bcl", "dscl_pbsd"])
def test_methods_with_several_views_train(data: Path, tmp_path: Path, name: str) -> None:
    params = {"queue": 64, "patch_size": 16} if name == "dscl_pbsd" else {}
    record = run(photo_trees.cell(IMAGENET, find(name).choose(**params), epochs=1), data, tmp_path)
    assert record["metrics"]["accuracy"] is not None


def test_a_broken_image_fails_the_run_with_its_name(tmp_path: Path) -> None:
    root = photo_trees.imagenet(tmp_path / "data")
    victim = sorted((root / "train").rglob("*.JPEG"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    cell = photo_trees.cell(IMAGENET, CE, epochs=1)
    run_cell(cell, tmp_path, tmp_path / "data")
    record = RunDir(tmp_path, cell.run_id).read_record()
    assert record["status"] == "failed"
    assert victim.name in record["reason"]
