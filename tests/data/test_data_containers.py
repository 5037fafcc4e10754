"""Images inside of larger files: parquet, `datasets` on disk and WebDataset shards, by their own packages."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import photo_trees
import pytest
from cifar_files import FACTOR, recognised
from commands import Bench
from PIL import Image
from project import ROOT

from bench.cell import Columns, DataSet, Parts
from bench.data.read import containers
from bench.data.read.containers import index
from bench.data.read.readers import files_called
from bench.data.read.sources import read
from bench.data.sets import content, subsets
from bench.data.sets.catalogue import DATASETS
from bench.data.sets.check import before_training, check
from bench.data.split.load import InMemory, OnDisk, load
from bench.errors import BenchError
from bench.recipe.axes import read_datasets
from bench.recipe.files import read as recipe_file
from bench.registry import find
from bench.rundir import RunDir
from bench.train.run import run_cell

CLASSES = ("cat", "dog", "owl")
COUNTS = {"train": (5, 4, 3), "test": (2, 2, 2)}

#: An image's name, its encoded bytes, and its label.
Row = tuple[str, bytes, Any]


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def rows(part: str, seed: int = 0, size: int = 8) -> list[Row]:
    """Return small images of three classes, not sorted by class."""
    rng = np.random.default_rng([seed, len(part)])
    labels = rng.permutation(np.repeat(np.arange(3), COUNTS[part])).tolist()
    pixels = rng.integers(0, 256, (len(labels), size, size, 3), np.uint8)
    return [(f"{part}{i}.png", encoded(pixels[i]), label) for i, label in enumerate(labels)]


def to_parquet(
    root: Path, parts: dict[str, list[Row]], names: tuple[str, ...] | None = CLASSES, **also: Any
) -> None:
    """Write two files of each part as the Hub has them, with what `datasets` says of the columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    label = also.pop("label", "label")
    features = {"img": {"_type": "Image"}, label: {"names": list(names or ()), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    (root / "data").mkdir(parents=True, exist_ok=True)
    for part, some in parts.items():
        table = pa.table(
            {
                "img": [{"bytes": image, "path": name} for name, image, _ in some],
                label: [value for *_, value in some],
                **{name: pa.array([value] * len(some)) for name, value in also.items()},
            }
        ).replace_schema_metadata(metadata)
        middle = len(some) // 2
        for number, piece in enumerate((table[:middle], table[middle:])):
            pq.write_table(piece, root / "data" / f"{part}-{number:05}-of-00002.parquet")


def to_datasets(root: Path, parts: dict[str, list[Row]], names: tuple[str, ...] | None = CLASSES) -> None:
    """Save a DatasetDict on disk."""
    import datasets

    label = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "label": label})
    splits = {
        part: datasets.Dataset.from_dict(
            {"image": [{"bytes": i, "path": n} for n, i, _ in some], "label": [value for *_, value in some]},
            features=features,
        )
        for part, some in parts.items()
    }
    datasets.DatasetDict(splits).save_to_disk(str(root))


def to_webdataset(root: Path, parts: dict[str, list[Row]], names: tuple[str, ...] | None = None) -> None:
    """Write two shards of each part; with names, labels are words."""
    import webdataset

    root.mkdir(parents=True, exist_ok=True)
    for part, some in parts.items():
        middle = len(some) // 2
        for number, piece in enumerate((some[:middle], some[middle:])):
            with webdataset.TarWriter(str(root / f"toy-{part}-{number:06}.tar")) as shard:
                for name, image, label in piece:
                    word = names[label] if names else str(label)
                    shard.write({"__key__": name.partition(".")[0], "png": image, "cls": word.encode()})


WRITERS: dict[str, Callable[..., None]] = {
    "parquet": to_parquet,
    "datasets": to_datasets,
    "webdataset": to_webdataset,
}


@pytest.fixture(params=WRITERS)
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> DataSet:
    """A data set of each kind, of the same images in the same order."""
    WRITERS[request.param](tmp_path / "toy", {part: rows(part) for part in COUNTS})
    return DataSet(name="toy", source=request.param, folder="toy", image_size=8, profile="natural")


def changed(dataset: DataSet, **fields: Any) -> DataSet:
    return DataSet.model_validate({**dataset.model_dump(), **fields})


def pixels_of(some: list[Row]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for _, image, _ in some])


# -- into memory ---------------------------------------------------------------------------------
def test_images_and_labels_come_in_the_order_of_the_files(toy: DataSet, tmp_path: Path) -> None:
    images = read(toy, tmp_path)
    for part in COUNTS:
        np.testing.assert_array_equal(getattr(images, f"{part}_images"), pixels_of(rows(part)))
        assert getattr(images, f"{part}_labels").tolist() == [label for *_, label in rows(part)]
    assert images.class_names == (("0", "1", "2") if toy.source == "webdataset" else CLASSES)


def test_all_kinds_have_one_content(tmp_path: Path) -> None:
    found = set()
    for source, write in WRITERS.items():
        write(tmp_path / source, {part: rows(part) for part in COUNTS})
        dataset = DataSet(name=source, source=source, folder=source, image_size=8, profile="natural")
        split = load(dataset, 1.0, tmp_path)
        found.add((*split.fingerprint.values(), *split.image_hashes.values()))
    assert len(found) == 1


def test_images_of_another_size_are_cut_as_those_of_folders_are(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)
    parts = {part: [(n, encoded(photo, "JPEG"), label) for n, _, label in rows(part)] for part in COUNTS}
    to_parquet(tmp_path / "toy", parts)
    for part, some in parts.items():
        for name, image, label in some:
            file = tmp_path / "tree" / part / CLASSES[label] / name.replace("png", "jpg")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
    same = {"image_size": 8, "profile": "natural"}
    contained = read(DataSet(name="toy", source="parquet", folder="toy", **same), tmp_path)
    tree = read(DataSet(name="tree", source="folder", folder="tree", **same), tmp_path)
    np.testing.assert_array_equal(contained.train_images[0], tree.train_images[0])


def test_files_are_read_once_and_again_when_they_change(
    toy: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, key = read(toy, tmp_path), content.key(toy, tmp_path)
    with monkeypatch.context() as nothing:
        nothing.setattr(containers, "items", lambda *_: pytest.fail("read again"))
        again = read(toy, tmp_path)
        assert again.key == first.key
        assert before_training(toy, tmp_path, np.ones(3)) == []
    other = {part: rows(part, seed=1) for part in COUNTS}
    shutil.rmtree(tmp_path / "toy")
    WRITERS[toy.source](tmp_path / "toy", other)
    assert content.key(toy, tmp_path) != key
    np.testing.assert_array_equal(read(toy, tmp_path).train_images, pixels_of(other["train"]))


def test_words_are_labels_too(tmp_path: Path) -> None:
    to_webdataset(tmp_path / "toy", {part: rows(part) for part in COUNTS}, names=("owl", "cat", "dog"))
    images = read(DataSet(name="toy", source="webdataset", folder="toy", image_size=8), tmp_path)
    assert images.class_names == ("cat", "dog", "owl")
    assert images.train_labels.tolist() == [(label - 1) % 3 for *_, label in rows("train")]


def test_a_validation_split_is_the_test_set_where_there_is_no_other(tmp_path: Path) -> None:
    for source, write in WRITERS.items():
        write(tmp_path / source, {"train": rows("train"), "validation": rows("test")})
        dataset = DataSet(name="toy", source=source, folder=source, image_size=8)
        assert len(read(dataset, tmp_path).test_images) == 6


def test_parts_are_named_by_words_or_patterns(tmp_path: Path) -> None:
    to_webdataset(tmp_path / "toy", {"train": rows("train"), "test": rows("test")})
    dataset = DataSet(name="toy", source="webdataset", folder="toy", image_size=8)
    half = changed(dataset, parts={"train": "toy-train-*1.tar", "test": "train"})
    images = read(half, tmp_path)
    assert (len(images.train_labels), len(images.test_labels)) == (6, 12)


# -- what is wrong -------------------------------------------------------------------------------
def refused(dataset: DataSet, data: Path, *wanted: str) -> None:
    with pytest.raises(BenchError) as error:
        read(dataset, data)
    message = str(error.value)
    assert "\n" not in message
    for text in wanted:
        assert text in message


def test_a_missing_package_names_the_extra(
    toy: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"parquet": "pyarrow"}.get(toy.source, toy.source)
    monkeypatch.setitem(sys.modules, package, None)  # what an import then meets is as if it were not there
    refused(toy, tmp_path, package, f"pip install -e '.[{toy.source}]'")


def test_a_missing_column_names_those_that_there_are(tmp_path: Path) -> None:
    to_parquet(tmp_path / "toy", {part: rows(part) for part in COUNTS}, label="fine_label", coarse_label=3)
    dataset = DataSet(name="toy", source="parquet", folder="toy", image_size=8)
    refused(
        dataset,
        tmp_path,
        "more than one column may have the label",
        "img, fine_label, coarse_label",
        "columns:",
    )
    wrong = changed(dataset, columns={"label": "fine_labels"})
    refused(
        wrong,
        tmp_path,
        "no column 'fine_labels'; did you mean 'fine_label'?",
        "img, fine_label, coarse_label",
    )
    refused(
        changed(dataset, columns={"image": "fine_label"}),
        tmp_path,
        "'fine_label' is int64, which is no image",
    )
    right = changed(dataset, columns={"label": "fine_label"})
    assert read(right, tmp_path).class_names == CLASSES


def test_a_missing_suffix_names_those_that_there_are(tmp_path: Path) -> None:
    to_webdataset(tmp_path / "toy", {part: rows(part) for part in COUNTS})
    dataset = DataSet(name="toy", source="webdataset", folder="toy", image_size=8)
    refused(
        changed(dataset, columns={"label": "json"}), tmp_path, "no 'json'", "there are cls, png", "columns"
    )


def test_the_name_of_a_part_may_have_several_words(tmp_path: Path) -> None:
    for name in ("train_clean-0", "train-0", "test_clean-0"):
        (tmp_path / f"{name}.parquet").touch()
    parquet = DataSet(name="toy", source="parquet", folder=".", image_size=8)
    (found,) = files_called(parquet, tmp_path, "train_clean")
    assert found.name == "train_clean-0.parquet"


def test_a_missing_part_is_reported_what_there_is(toy: DataSet, tmp_path: Path) -> None:
    refused(changed(toy, parts={"train": "training"}), tmp_path, "'training'", "train", "parts: {train:")


def test_a_part_without_labels_is_no_test_set(tmp_path: Path) -> None:
    without = [(name, image, -1) for name, image, _ in rows("test")]
    to_parquet(tmp_path / "toy", {"train": rows("train"), "test": without, "validation": rows("test")})
    dataset = DataSet(name="toy", source="parquet", folder="toy", image_size=8)
    refused(dataset, tmp_path, "test has label -1, but there are 3 classes", "name another one with parts")
    assert len(read(changed(dataset, parts={"test": "validation"}), tmp_path).test_images) == 6


def test_a_class_without_training_images_is_reported(tmp_path: Path) -> None:
    to_parquet(tmp_path / "toy", {part: rows(part) for part in COUNTS}, names=(*CLASSES, "yak"))
    dataset = DataSet(name="toy", source="parquet", folder="toy", image_size=8)
    refused(dataset, tmp_path, "no training image of class 3 'yak'")


def test_a_broken_image_is_named(toy: DataSet, tmp_path: Path) -> None:
    broken = rows("train")
    broken[4] = (broken[4][0], b"no image", broken[4][2])
    WRITERS[toy.source](tmp_path / "broken", {"train": broken, "test": rows("test")})
    dataset = changed(toy, folder="broken")
    refused(dataset, tmp_path, "train image train4.png: not a readable image")
    findings = check(dataset, tmp_path / "broken", data_dir=tmp_path, decode=True)
    assert findings.faults == ["train: 1 of 12 images broken: train4.png"]


def test_a_damaged_file_is_reported(toy: DataSet, tmp_path: Path) -> None:
    for file in (tmp_path / "toy").rglob("*.*"):
        if file.suffix in (".parquet", ".arrow", ".tar"):
            file.write_bytes(file.read_bytes()[:300])
    refused(toy, tmp_path, str(tmp_path / "toy"), f"not readable as {toy.source}", "fetch it again")


def test_a_folder_that_is_not_there_or_empty_is_reported(toy: DataSet, tmp_path: Path) -> None:
    refused(changed(toy, folder="nowhere"), tmp_path, "no such folder for 'toy'", "--data")
    (tmp_path / "empty").mkdir()
    refused(changed(toy, folder="empty"), tmp_path, f"which source: {toy.source} needs")


# -- checked -------------------------------------------------------------------------------------
def test_leaks_and_contradictions_stop_a_run(toy: DataSet, tmp_path: Path) -> None:
    train, test = rows("train"), rows("test")
    test[0] = ("again.png", train[3][1], train[3][2])
    train.append(("other.png", train[0][1], (train[0][2] + 1) % 3))
    WRITERS[toy.source](tmp_path / "bad", {"train": train, "test": test})
    dataset = changed(toy, folder="bad")
    with pytest.raises(BenchError) as error:
        before_training(dataset, tmp_path, np.ones(3))
    lines = str(error.value).splitlines()
    assert "train: 1 images have two labels: train train0.png (class" in lines[0]
    assert "test: 1 images are in train too: train train3.png = test again.png" in lines[1]
    assert "allow_leak" in lines[1]
    findings = check(dataset, tmp_path / "bad", data_dir=tmp_path)
    assert [fault.partition(":")[0] for fault in findings.faults] == ["train", "test"]


def test_check_shows_parts_and_remarks(toy: DataSet, tmp_path: Path, bench: Bench) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(
        f"datasets: {{toy: {{source: {toy.source}, folder: toy, image_size: 8, profile: natural}}}}\n"
    )
    code, out = bench("data", "check", "toy", "--recipe", recipe, "--data", tmp_path, "--decode")
    assert code == 0, out
    assert [word for word in out.split() if word in ("12", "6")] == ["12", "12", "6", "6"]
    code, out = bench("data", "show", "toy", "--recipe", recipe, "--data", tmp_path)
    assert code == 0, out
    assert "12 training images, 5 to 3 of a class" in out


# -- CIFAR from elsewhere ------------------------------------------------------------------------
@pytest.mark.parametrize("source", WRITERS)
def test_pixel_identical_cifar_is_recognised(official: DataSet, tmp_path: Path, source: str) -> None:
    images = read(official, tmp_path)
    parts = {
        part: [
            (f"{i}.png", encoded(pixels), int(label))
            for i, (pixels, label) in enumerate(
                zip(getattr(images, f"{part}_images"), getattr(images, f"{part}_labels"), strict=True)
            )
        ]
        for part in COUNTS
    }
    WRITERS[source](tmp_path / "hub", parts, None)
    dataset = DataSet(name="hub", source=source, folder="hub", n_max=40)
    split = load(dataset, FACTOR, tmp_path)
    assert split.fingerprint == load(official, FACTOR, tmp_path).fingerprint  # the same order, too
    found = recognised(split)
    assert found is not None
    assert (found.published, found.draw) == ("mine", "original")
    parts["train"].reverse()
    WRITERS[source](tmp_path / "reversed", parts, None)
    found = recognised(load(changed(dataset, folder="reversed"), FACTOR, tmp_path))
    assert found is not None
    assert found.draw == "another"


def test_what_a_published_set_has_twice_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = rows("train"), rows("test")
    test[0] = ("again.png", train[3][1], train[3][2])
    to_parquet(tmp_path / "hub", {"train": train, "test": test})
    dataset = DataSet(name="hub", source="parquet", folder="hub", image_size=8, profile="natural")
    hashes = load(dataset, 1.0, tmp_path).image_hashes
    known = {"mine": {("set", None): hashes["set"], ("test", None): hashes["test"]}}
    monkeypatch.setattr(subsets, "_known", lambda: known)
    (remark,) = before_training(dataset, tmp_path, np.ones(3))
    assert "images are in train too" in remark


# -- streamed ------------------------------------------------------------------------------------
def streamed(source: str, **fields: Any) -> DataSet:
    return DataSet(
        name="toy", source=source, folder="toy", image_size=32, profile="natural", streamed=True, **fields
    )


@pytest.fixture(params=WRITERS)
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Photographs in containers, and in a tree of files."""
    data = tmp_path
    parts: dict[str, list[Row]] = {}
    for seed, (part, counts) in enumerate(COUNTS.items()):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        parts[part] = []
        for i, (label, photo) in enumerate(zip(labels, photo_trees.patches(len(labels), seed), strict=True)):
            file = data / "tree" / part / CLASSES[label] / f"{i:03}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            photo.save(file, "JPEG", quality=90)
            parts[part].append((file.name, file.read_bytes(), label))
    WRITERS[request.param](data / "toy", parts)
    return request.param


def test_what_is_streamed_is_packed_first(photos: str, tmp_path: Path, bench: Bench) -> None:
    dataset = streamed(photos)
    with pytest.raises(BenchError, match=r"data prepare toy --recipe FILE"):
        load(dataset, 1.0, tmp_path)
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(
        f"datasets: {{toy: {{source: {photos}, folder: toy, image_size: 32, streamed: true, "
        "profile: natural}}\n"
    )
    code, out = bench("data", "prepare", "toy", "--recipe", recipe, "--data", tmp_path)
    assert code == 0, out
    split = load(dataset, 1.0, tmp_path)
    assert isinstance(split, OnDisk)
    tree = changed(dataset, source="folder", folder="tree")
    files = load(tree, 1.0, tmp_path)
    assert isinstance(files, OnDisk)
    for one, other in ((split.pictures, files.pictures), (split.test_pictures, files.test_pictures)):
        assert len(one) == len(other)
        assert all(one.open(i).tobytes() == other.open(i).tobytes() for i in range(len(one)))
    assert split.labels.tolist() == files.labels.tolist()
    code, out = bench("data", "prepare", "toy", "--recipe", recipe, "--data", tmp_path)  # it is all there
    assert code == 0, out
    again = load(dataset, 1.0, tmp_path)
    assert again.fingerprint == split.fingerprint
    assert before_training(dataset, tmp_path, split.class_counts) == []


def test_shards_of_other_images_are_not_taken(tmp_path: Path, bench: Bench) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(
        "datasets: {toy: {source: parquet, folder: toy, image_size: 32, profile: natural, streamed: true}}\n"
    )
    for seed in (0, 1):
        to_parquet(tmp_path / "toy", {part: rows(part, seed) for part in COUNTS})
        if seed:
            with pytest.raises(BenchError, match="data prepare"):
                load(streamed("parquet"), 1.0, tmp_path)
        code, out = bench("data", "prepare", "toy", "--recipe", recipe, "--data", tmp_path)
        assert code == 0, out
        split = load(streamed("parquet"), 1.0, tmp_path)
        assert isinstance(split, OnDisk)
        packed = split.pictures.shards
        assert packed is not None
        assert [packed.content(place) for place in range(packed.images)] == [
            i for _, i, _ in rows("train", seed)
        ]


def test_a_run_trains_on_containers_as_on_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_WORKERS", "0")
    to_parquet(tmp_path / "toy", {part: rows(part, size=32) for part in COUNTS})
    dataset = DataSet(name="toy", source="parquet", folder="toy", image_size=32, profile="natural")
    cell = photo_trees.cell(dataset, find("ce").choose(), epochs=1, augmentation="crop_flip")
    run_cell(cell, tmp_path / "results", tmp_path)
    record = RunDir(tmp_path / "results", cell.run_id).read_record()
    assert record["status"] == "done", record["reason"]
    assert record["data"]["class_names"] == list(CLASSES)
    assert set(record["image_hashes"]) == {"set", "train", "test"}
    assert record["environment"]["rests_on"]["data"] == content.key(dataset, tmp_path)


# -- torchvision's ImageFolder layout ---------------------------------------------------------------
def imagenet_tree(data: Path) -> DataSet:
    for seed, (part, counts) in enumerate((("train", (4, 3, 2)), ("val", (2, 2, 2)))):
        paths = [
            f"{part}/{photo_trees.WNIDS[c]}/{c}_{i}.JPEG"
            for c, count in enumerate(counts)
            for i in range(count)
        ]
        photo_trees.write(data / "imagenet", paths, seed)
    return DataSet(name="mine", source="folder", folder="imagenet", image_size=32, profile="natural")


def test_imagenets_folders_are_read_as_they_are(tmp_path: Path) -> None:
    dataset = imagenet_tree(tmp_path)
    split = load(dataset, 1.0, tmp_path)
    assert isinstance(split, InMemory)
    assert split.class_names == photo_trees.WNIDS[:3]
    assert (split.class_counts.tolist(), len(split.test_labels)) == ([4, 3, 2], 6)


def test_imagenets_folders_are_streamed(tmp_path: Path, bench: Bench) -> None:
    dataset = changed(imagenet_tree(tmp_path), streamed=True)
    split = load(dataset, 1.0, tmp_path)
    assert isinstance(split, OnDisk)
    assert (split.class_counts.tolist(), len(split.test_labels)) == ([4, 3, 2], 6)
    assert split.pictures.file(4).name == "1_0.JPEG"
    assert before_training(dataset, tmp_path, split.class_counts) == []
    key = content.key(dataset, tmp_path)
    photo_trees.write(tmp_path / "imagenet", ["train/n01440764/0_9.JPEG"], 5)
    assert content.key(dataset, tmp_path) != key
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "datasets: {mine: {source: folder, folder: imagenet, image_size: 32, streamed: true, "
        "profile: natural}}\n"
    )
    code, out = bench("data", "prepare", "mine", "--recipe", recipe, "--data", tmp_path)
    assert code == 0, out
    packed = load(dataset, 1.0, tmp_path)
    assert isinstance(packed, OnDisk)
    assert packed.pictures.shards is not None
    assert packed.fingerprint == load(dataset, 1.0, tmp_path).fingerprint


def test_training_images_of_folders_are_held_out_in_memory_and_streamed(tmp_path: Path) -> None:
    dataset = changed(imagenet_tree(tmp_path), held_out=1)
    splits = [load(changed(dataset, streamed=streams), 1.0, tmp_path) for streams in (False, True)]
    for split in splits:
        assert (split.class_counts.tolist(), split.test_labels.tolist()) == ([3, 2, 1], [0, 1, 2])
    assert splits[1].test_pictures.file(0).parent.name == "n01440764"


def test_a_validation_part_selects_the_checkpoint(tmp_path: Path) -> None:
    dataset = changed(imagenet_tree(tmp_path), streamed=True)
    photo_trees.write(
        tmp_path / "imagenet", [f"test/{w}/{i}.JPEG" for w in photo_trees.WNIDS[:3] for i in "ab"], 7
    )
    split = load(changed(dataset, parts={"val": "val"}), 1.0, tmp_path)
    assert isinstance(split, OnDisk)
    assert split.test_pictures.file(0).name == "a.JPEG"
    assert split.val_pictures is not None
    assert len(split.val_pictures) == 6
    assert content.validation(changed(dataset, parts={"val": "val"}), tmp_path)


def test_list_files_are_read_into_memory_if_asked(tmp_path: Path) -> None:
    photo_trees.imagenet(tmp_path)
    listed = photo_trees.small("imagenet_lt")
    split = load(changed(listed, name="mine", streamed=False), 1.0, tmp_path)
    assert isinstance(split, InMemory)
    assert split.class_counts.tolist() == list(photo_trees.COUNTS)
    assert set(split.image_hashes) == {"set", "train", "test"}
    on_disk = load(listed, 1.0, tmp_path)
    assert isinstance(on_disk, OnDisk)
    assert split.labels.tolist() == on_disk.labels.tolist()


# -- in a recipe ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "parquet"}, "needs folder"),
        ({"source": "digits", "streamed": True}, "read into memory"),
        ({"source": "folder", "folder": "x", "columns": {"label": "y"}}, "columns is for"),
        (
            {"source": "folder", "folder": "x", "parts": {"val": "val"}},
            "its val for images that are streamed",
        ),
        ({"source": "folder", "folder": "x", "short_side": 64}, "short_side is for"),
    ],
)
def test_what_does_not_go_together_is_reported(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSet(name="x", **fields)


def test_cells_of_before_keep_their_ids() -> None:
    plain = DataSet(name="x", source="folder", folder="y").identity()
    assert plain == {"name": "x", "source": "folder"}
    asked = DataSet(
        name="x",
        source="parquet",
        folder="y",
        streamed=True,
        parts=Parts(test="validation"),
        columns=Columns(label="fine_label"),
    )
    assert asked.identity() == {
        "name": "x",
        "source": "parquet",
        "streamed": True,
        "parts": {"test": "validation"},
        "columns": {"label": "fine_label"},
    }


def test_an_index_names_its_images_and_hashes_their_bytes(toy: DataSet, tmp_path: Path) -> None:
    import hashlib

    found = index(toy, tmp_path / "toy", tmp_path)
    assert found.train.path(3) == "train3.png"
    assert found.train.hashes is not None
    assert found.train.hashes[3].tobytes() == hashlib.sha256(rows("train")[3][1]).digest()


def test_the_data_sets_of_the_documentation_are_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(shown) == 2
    for example in shown:
        (tmp_path / "shown.yaml").write_text(example)
        asked = read_datasets(recipe_file(tmp_path / "shown.yaml")[0].mapping["datasets"])
        assert set(asked) - set(DATASETS)
