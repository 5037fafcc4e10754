"""Generated images join the training images in the same number every epoch, and are never counted as real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import photo_trees
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bench import records, rundir
from bench.cell import BackboneChoice, Cell, DataSet, ExtraTrain, Optimizer, Protocol, Schedule
from bench.data.feed.memory import MemoryLoader
from bench.data.sets.catalogue import DATASETS
from bench.data.split import manifest
from bench.data.split.load import Split, load
from bench.data.split.manifest import Manifest, Settings
from bench.errors import BenchError
from bench.launch.checks import training_images
from bench.leaderboard.protocols import protocols
from bench.leaderboard.reanalysis import stored
from bench.method import Batch, View
from bench.published import load as load_published
from bench.published import to_rows as literature
from bench.recipe import load as load_recipe
from bench.registry import find
from bench.train.evaluate import evaluate_run
from bench.train.run import run_cell

torch.set_num_threads(1)

REAL = [120, 86, 61, 44, 31, 22, 16, 11, 8, 6]
THERE = {7: 4, 8: 7, 9: 10}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with generated digits; the corner of each says its class, the next pixel its index."""
    root = tmp_path_factory.mktemp("data")
    for digit, number in THERE.items():
        (root / f"made/{digit}").mkdir(parents=True)
        for index in range(number):
            pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
            pixels[0, 0], pixels[0, 1] = 200 + digit, index
            Image.fromarray(pixels).save(root / f"made/{digit}/{index:05}.png")
    return root


def digits(**extra: Any) -> DataSet:
    added = ExtraTrain(**{"name": "noise", "folder": "made"} | extra)
    return DATASETS["digits"].model_copy(update={"extra_train": added})


def cell(dataset: DataSet, epochs: int = 1, seed: int = 0, **protocol: Any) -> Cell:
    return Cell(
        method=find("balanced_softmax").choose(),
        dataset=dataset,
        imbalance_factor=20.0,
        backbone=BackboneChoice(name="resnet8_cifar"),
        protocol=Protocol(
            epochs=epochs,
            batch_size=64,
            optimizer=Optimizer(lr=0.05),
            schedule=Schedule(warmup_epochs=1),
            **protocol,
        ),
        seed=seed,
    )


def split_of(data: Path, **extra: Any) -> Split:
    return load(digits(**extra), 20.0, data)


def loader_of(split: Split, **options: Any) -> MemoryLoader:
    return MemoryLoader(split, (View("none"),), cell(split.dataset, **options), "cpu")


def seen(loader: MemoryLoader, epoch: int, sampler: str = "shuffle") -> list[tuple[int, int, int]]:
    """Return label, corner and next pixel of every image of an epoch; real digits have no corner."""
    dataset = loader.split.dataset
    found = []
    for batch in loader.epoch(epoch, 10, sampler):
        pixels = batch.images[:, 0, 0, :2] * dataset.std[0] + dataset.mean[0]
        corners, indices = (pixels * 255).round().long().T.tolist()
        found += list(zip(batch.labels.tolist(), corners, indices, strict=True))
    return found


def made(images: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return class and index of the generated ones, which must be labelled as what they are."""
    assert all(corner == 200 + label for label, corner, _ in images if corner >= 200)
    return sorted((label, index) for label, corner, index in images if corner >= 200)


# -- identity -----------------------------------------------------------------------------------------
def test_the_name_enters_the_cell_and_the_place_does_not() -> None:
    plain = cell(DATASETS["digits"])
    assert "extra_train" not in plain.dataset.identity()
    one = cell(digits())
    assert one.id != plain.id
    assert one.id == cell(digits(folder="elsewhere", kind="generated_in_domain")).id
    changes = ({"name": "other"}, {"weight": 0.5}, {"max_per_class": 3}, {"fill_to": 10})
    assert len({one.id, *(cell(digits(**change)).id for change in changes)}) == 5
    assert Cell.model_validate_json(one.model_dump_json()) == one


def test_a_recipe_adds_them_to_a_data_set(tmp_path: Path) -> None:
    recipe = tmp_path / "extra.yaml"
    text = """\
datasets:
  digits_filled:
    base: digits
    copy_of: digits
    copy_kind: original
    extra_train: {name: sd, folder: synthetic/digits, weight: 0.5, fill_to: 20}
grid: {dataset: [digits, digits_filled], imbalance_factor: 20, backbone: resnet8_cifar}
methods: {ce: {}}
"""
    recipe.write_text(text)
    plain, filled = (point.cell.dataset for point in load_recipe(recipe).points)
    assert plain.extra_train is None
    assert filled.extra_train == ExtraTrain(name="sd", folder="synthetic/digits", weight=0.5, fill_to=20)
    recipe.write_text(text.replace("weight: 0.5", "wait: 0.5"))
    with pytest.raises(
        BenchError, match=r"extra.yaml:6: .*extra_train.wait: unknown key .wait.; did you mean .weight."
    ):
        load_recipe(recipe)
    recipe.write_text(text.replace("weight: 0.5", "weight: 1.5"))
    with pytest.raises(BenchError, match=r"extra.yaml:6: .*weight: should be less than or equal to 1"):
        load_recipe(recipe)


# -- what an epoch sees -------------------------------------------------------------------------------
def test_all_take_part_in_every_epoch_by_default(data: Path) -> None:
    split = split_of(data)
    assert split.class_counts.tolist() == REAL
    assert split.epoch_counts.tolist() == [*REAL[:7], 11 + 4, 8 + 7, 6 + 10]
    loader = loader_of(split)
    assert loader.size == sum(REAL) + 21
    every = [(digit, index) for digit, number in THERE.items() for index in range(number)]
    for epoch in range(2):
        images = seen(loader, epoch)
        assert np.bincount([label for label, _, _ in images]).tolist() == split.epoch_counts.tolist()
        assert made(images) == every


def test_a_weight_is_the_share_of_epochs_of_each_image(data: Path) -> None:
    split = split_of(data, weight=0.3)
    assert (split.epoch_counts - split.class_counts)[7:].tolist() == [1, 2, 3]  # of 1.2, 2.1 and 3.0
    loader = loader_of(split)
    epochs = [made(seen(loader, epoch)) for epoch in range(40)]
    for images in epochs:
        assert len(set(images)) == len(images)
        assert [digit for digit, _ in images] == [7, 8, 8, 9, 9, 9]
    part = {image: sum(image in images for images in epochs) for images in epochs for image in images}
    assert len(part) == 21
    assert all(3 <= times <= 24 for times in part.values())
    assert len(set(map(tuple, epochs))) > 30
    again = loader_of(split_of(data, weight=0.3))
    assert made(seen(again, 7)) == epochs[7]
    assert [made(seen(loader_of(split, seed=1), epoch)) for epoch in range(3)] != epochs[:3]


def test_the_real_images_are_the_same_ones_with_and_without(data: Path) -> None:
    plain = loader_of(load(DATASETS["digits"], 20.0, data))
    loader = loader_of(split_of(data, weight=0.5))
    real = sorted(image for image in seen(loader, 0) if image[1] < 200)
    assert real == sorted(seen(plain, 0))
    for mine, theirs in zip(loader.train_eval(), plain.train_eval(), strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])


def test_each_class_takes_its_first_images_up_to_its_limits(data: Path) -> None:
    def indices(**extra: Any) -> dict[int, list[int]]:
        images = made(seen(loader_of(split_of(data, **extra)), 0))
        return {digit: [index for label, index in images if label == digit] for digit in THERE}

    assert indices(max_per_class=5) == {7: [0, 1, 2, 3], 8: [0, 1, 2, 3, 4], 9: [0, 1, 2, 3, 4]}
    assert indices(fill_to=12) == {7: [0], 8: [0, 1, 2, 3], 9: [0, 1, 2, 3, 4, 5]}
    assert indices(fill_to=10, max_per_class=3) == {7: [], 8: [0, 1], 9: [0, 1, 2]}


@pytest.mark.parametrize("sampler", ["class_balanced", "sqrt", "reverse"])
def test_samplers_draw_them_too(data: Path, sampler: str) -> None:
    loader = loader_of(split_of(data, weight=0.5))
    epochs = [seen(loader, epoch, sampler) for epoch in range(6)]
    assert {len(images) for images in epochs} == {loader.size}
    drawn = [set(made(images)) for images in epochs]
    assert all(len([1 for digit, _ in images if digit == 9]) <= 5 for images in drawn)
    assert len(set().union(*drawn)) > 15


def test_a_second_batch_and_positions_speak_of_the_same_images(data: Path) -> None:
    split = split_of(data, weight=0.5)
    loader = MemoryLoader(split, (View("none"),), cell(split.dataset), "cpu", extra_sampler="class_balanced")
    for epoch in (3, 0):
        for batch in loader.epoch(epoch, 10, "shuffle"):
            assert isinstance(batch.extra, Batch)
            for part in (batch, batch.extra):
                assert torch.equal(loader.images_at(part.positions), part.images)
                assert np.array_equal(split.labels[part.positions], part.labels)


def test_the_fingerprint_covers_them(data: Path, tmp_path: Path) -> None:
    plain, one = load(DATASETS["digits"], 20.0, data), split_of(data)
    assert plain.fingerprint == {key: one.fingerprint[key] for key in ("train", "test")}
    assert one.fingerprint == split_of(data, weight=0.5).fingerprint
    assert one.fingerprint != split_of(data, max_per_class=5).fingerprint
    assert one.key != plain.key
    other = tmp_path / "made/9/00000.png"
    other.parent.mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(other)  # of another size: it is resized
    before = split_of(tmp_path)
    assert before.images[-1].flatten(1).T.unique(dim=0).tolist() == [[255, 0, 0]]
    Image.new("RGB", (20, 20), "blue").save(other)
    assert split_of(tmp_path).fingerprint["extra_train"] != before.fingerprint["extra_train"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"folder": "nowhere"}, r"nowhere: no such folder, which digits: extra_train 'noise' needs; fill it"),
        ({"folder": "../made"}, r"extra_train 'noise': folder '../made' leaves the data directory"),
        ({"fill_to": 6}, r"no epoch would use an image of"),
        ({"weight": 0.01}, r"no epoch would use an image of"),
    ],
)
def test_what_cannot_be_added_is_refused(data: Path, extra: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        split_of(data, **extra)
    with pytest.raises(BenchError, match=message):
        training_images(cell(digits(**extra)), data)


def test_a_folder_or_image_that_is_none_of_the_classes_is_reported(tmp_path: Path) -> None:
    (tmp_path / "made/3").mkdir(parents=True)
    (tmp_path / "made/3/00000.png").write_bytes(b"no image")
    with pytest.raises(BenchError, match=r"00000.png: not a readable image"):
        split_of(tmp_path)
    (tmp_path / "made/three").mkdir()
    with pytest.raises(BenchError, match=r"three: digits: extra_train 'noise' has no such class"):
        split_of(tmp_path)


def test_classes_may_lie_in_folders_of_folders(tmp_path: Path) -> None:
    photo_trees.inaturalist(tmp_path)
    for name, number in (("Aves/1", 4), ("Insecta/3", 5)):
        (tmp_path / "made" / name).mkdir(parents=True)
        for index in range(number):
            Image.new("RGB", (8, 8), "red").save(tmp_path / f"made/{name}/{index:05}.png")
    extra = ExtraTrain(name="noise", folder="made")
    dataset = photo_trees.small("inaturalist2018").model_copy(update={"extra_train": extra})
    assert load(dataset, 1.0, tmp_path).epoch_counts.tolist() == [9, 5 + 4, 3, 2 + 5]
    (tmp_path / "made/Aver").mkdir()
    with pytest.raises(BenchError, match=r"Aver: .* has no such class; did you mean 'Aves'"):
        load(dataset, 1.0, tmp_path)


# -- runs ---------------------------------------------------------------------------------------------
SETTINGS = Settings(
    model="noise",
    model_sha256="0",
    prompt="a {class}",
    steps=1,
    guidance=0.0,
    seed=0,
    precision="float32",
    image_size=8,
)


def run(one: Cell, results: Path, data: Path) -> dict[str, Any]:
    run_cell(one, results, data)
    record = rundir.RunDir(results, one.run_id).read_record()
    assert record["status"] == "done", record["traceback"]
    return record


def test_a_record_tells_what_was_added_and_counts_the_real_images(data: Path, tmp_path: Path) -> None:
    one = cell(digits(weight=0.5))
    manifest.write(data / "made", Manifest(settings=SETTINGS, images={}, filtered={}))
    recorded = run(one, tmp_path, data)["data"]
    (data / "made/manifest.json").unlink()
    assert recorded["class_counts"] == REAL
    assert recorded["epoch_counts"] == [*REAL[:7], 11 + 2, 8 + 4, 6 + 5]  # 3.5 rounds to 4
    assert recorded["extra_train"] == {
        "name": "noise",
        "kind": "generated_pretrained",
        "weight": 0.5,
        "made": SETTINGS.model_dump(),
        "counts": [0] * 7 + [4, 7, 10],
        "drawn": [0] * 7 + [2, 4, 5],
    }
    assert training_images(one, data) == sum(recorded["epoch_counts"])

    found = rundir.RunDir(tmp_path, one.run_id)
    weights = load_file(found.weights)
    assert weights["class_counts"].tolist() == recorded["epoch_counts"]
    record = found.read_record()
    groups = {group: record["metrics"][group] for group in ("many", "medium", "few")}
    per_class = record["metrics"]["per_class"]
    assert groups == {
        "many": pytest.approx(per_class[0]),
        "medium": pytest.approx(np.mean(per_class[1:6])),
        "few": pytest.approx(np.mean(per_class[6:])),  # 9 has 11 images in an epoch, and 6 real ones
    }
    assert evaluate_run(found, data)["per_class"] == pytest.approx(per_class)
    alone = tmp_path / "alone"  # nor are they needed to score what was trained on them
    alone.mkdir()
    assert evaluate_run(found, alone)["per_class"] == pytest.approx(per_class)
    again = stored(records.Results(tmp_path)[one.run_id])
    assert again.counts.tolist() == REAL
    assert again.epoch_counts is not None
    assert again.epoch_counts.tolist() == recorded["epoch_counts"]


def test_runs_with_generated_images_are_a_league_of_their_own(data: Path, tmp_path: Path) -> None:
    plain, filled = cell(DATASETS["digits"]), cell(digits(kind="generated_in_domain"))
    recorded = run(plain, tmp_path, data)["data"]
    assert recorded.keys().isdisjoint({"extra_train", "epoch_counts"})
    run(filled, tmp_path, data)
    done = protocols(records.Results(tmp_path), literature(load_published()))
    assert {one.run.run_id: one.protocol["extra_data"] for one in done} == {
        plain.run_id: "none",
        filled.run_id: "generated_in_domain",
    }
    assert {one.protocol["data_copy"] for one in done} == {"original"}
    assert len({one.key for one in done}) == 2


def test_a_stopped_run_goes_on_with_the_same_draws(data: Path, tmp_path: Path) -> None:
    one = cell(digits(weight=0.5), epochs=4)
    straight = run(one, tmp_path / "straight", data)

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(one, tmp_path / "stopped", data, report=stop, checkpoint_seconds=0)
    assert rundir.equal(straight, run(one, tmp_path / "stopped", data))
