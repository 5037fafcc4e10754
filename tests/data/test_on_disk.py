"""Splits of images on disk: what they are made of, their names, and the shards they may be read from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import photo_trees
import pytest
import torch
from photo_trees import everything, loader_of, pixels, same, split_of
from PIL import Image

from bench.cell import DataSet, ExtraTrain, ListFiles
from bench.data.feed.framing import test_frame as framed
from bench.data.read import shards
from bench.data.read.lists import read_lists
from bench.data.read.pictures import Pictures
from bench.data.split.load import OnDisk, load
from bench.errors import BenchError
from bench.method import View

IMAGENET = photo_trees.small("imagenet_lt")
SEED = photo_trees.SEED


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    photo_trees.mini_imagenet(root)
    return root


# -- splits -------------------------------------------------------------------------------------------
def test_a_missing_or_empty_image_is_reported_before_anything_runs(tmp_path: Path) -> None:
    root = photo_trees.imagenet(tmp_path)
    victim = sorted((root / "train").rglob("*.JPEG"))[3]
    victim.write_bytes(b"")
    with pytest.raises(BenchError, match=rf"{victim.name}: an empty file; replace it"):
        split_of(tmp_path)
    victim.unlink()
    with pytest.raises(BenchError, match=rf"{victim.name}: No such file.*data check"):
        split_of(tmp_path)


def test_the_fingerprint_knows_other_files_and_not_other_folders(tmp_path: Path) -> None:
    root = photo_trees.imagenet(tmp_path)
    before = split_of(tmp_path).fingerprint
    assert before == split_of(tmp_path).fingerprint
    listing = root / "ImageNet_LT_test.txt"
    for wnid in photo_trees.WNIDS:
        listing.write_text(listing.read_text().replace(f"val/{wnid}/", "val/"))
        for file in (root / "val" / wnid).iterdir():
            file.rename(root / "val" / file.name)
    assert split_of(tmp_path).fingerprint == before
    image = next((root / "train").rglob("*.JPEG"))
    Image.open(image).save(image, "JPEG", quality=50)
    after = split_of(tmp_path).fingerprint
    assert after["train"] != before["train"]
    assert after["test"] == before["test"]


def test_a_tail_can_be_cut_from_balanced_lists(tmp_path: Path) -> None:
    lists = ListFiles(train="train.txt", test="test.txt")
    photo_trees.tree(tmp_path / "even", lists, lambda part, label, i: f"{part}/{label}/{i}.jpg", [8, 8, 8, 8])
    dataset = DataSet(name="even", source="list", folder="even", lists=lists, image_size=32)
    split = load(dataset, 8.0, tmp_path)
    assert isinstance(split, OnDisk)
    assert split.class_counts.tolist() == [8, 4, 2, 1]
    assert split.labels.tolist() == [0] * 8 + [1] * 4 + [2] * 2 + [3]
    folders = [split.pictures.file(i).parent.name for i in range(15)]
    assert folders == list(map(str, split.labels))


def test_listed_generated_images_join_an_epoch(data: Path) -> None:
    extra = ExtraTrain(name="sd", folder="mini_imagenet_lt", list_file="gentrain.csv", fill_to=8)
    dataset = photo_trees.small("mini_imagenet_lt").model_copy(update={"extra_train": extra})
    split = split_of(data, dataset)
    assert split.class_counts.tolist() == list(photo_trees.COUNTS)
    assert split.epoch_counts.tolist() == [9, 8, 8, 8]
    assert set(split.fingerprint) == {"train", "test", "extra_train"}
    loader = loader_of(data, View("none"), dataset=dataset)
    positions = torch.cat([batch.positions for batch in loader.epoch(0, 2, "shuffle")])
    assert sorted(positions.tolist()) == list(range(33))
    for position in range(19, 33):
        file = split.extra_pictures.file(split.epoch_positions(SEED, 0)[position] - 19)
        assert file.parent.name == "genimages"
        with Image.open(file) as image:
            expected = np.asarray(framed(image.convert("RGB"), 32))
        shown = pixels(dataset, loader.images_at(torch.tensor([position])))[0].permute(1, 2, 0)
        assert np.array_equal(shown, expected)
    assert len(torch.cat([labels for _, labels in loader.train_eval()])) == 19, "the real ones alone"


def test_every_epoch_draws_its_share_of_them(data: Path) -> None:
    extra = ExtraTrain(name="sd", folder="mini_imagenet_lt", list_file="gentrain.csv", weight=0.5)
    dataset = photo_trees.small("mini_imagenet_lt").model_copy(update={"extra_train": extra})
    loader = loader_of(data, View("none"), dataset=dataset)
    seen = []
    for epoch in range(2):
        batches = list(loader.epoch(epoch, 2, "shuffle"))
        images, positions = (
            torch.cat([getattr(b, part) for b in batches]) for part in ("images", "positions")
        )
        seen.append(images[positions.argsort()])
        assert torch.equal(seen[-1], loader.images_at(torch.arange(loader.size)))
    assert torch.equal(seen[0][:19], seen[1][:19]), "the real ones are in every epoch"
    assert not torch.equal(seen[0][19:], seen[1][19:])


# -- shards -------------------------------------------------------------------------------------------
def packed(data: Path, dataset: DataSet, short_side: int | None) -> list[Path]:
    lists, places = read_lists(dataset, data), []
    for listing in lists.parts.values():
        place = shards.folder_of(data, str(dataset.folder), listing, short_side)
        pictures = Pictures(lists.root, listing.paths, listing.lines)
        files = [pictures.file(i) for i in range(len(listing))]
        shards.pack(files, place, short_side, lambda n: None, workers=2)
        places.append(place)
    return places


@pytest.fixture
def few_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PER_SHARD", 4)


@pytest.mark.usefixtures("few_per_shard")
def test_packed_images_are_the_same_images(tmp_path: Path) -> None:
    root = photo_trees.imagenet(tmp_path)
    views = (View("randcls"), View("none"))
    before, fingerprint = (
        everything(list(loader_of(tmp_path, *views).epoch(0, 2, "shuffle"))),
        split_of(tmp_path).fingerprint,
    )
    places = packed(tmp_path, IMAGENET, None)
    assert len(list(places[0].glob("*.bin"))) == 5
    for file in root.rglob("*.JPEG"):
        file.unlink()
    assert split_of(tmp_path).fingerprint == fingerprint
    assert same(everything(list(loader_of(tmp_path, *views).epoch(0, 2, "shuffle"))), before)


@pytest.mark.usefixtures("few_per_shard")
def test_shrunk_images_are_another_data_set(tmp_path: Path) -> None:
    photo_trees.imagenet(tmp_path)
    shrunk = IMAGENET.model_copy(update={"short_side": 40})
    with pytest.raises(
        BenchError, match=r"not packed with short_side 40; run .*data prepare imagenet_lt .*--short-side 40"
    ):
        split_of(tmp_path, shrunk)
    packed(tmp_path, IMAGENET, 40)
    split, original = split_of(tmp_path, shrunk), split_of(tmp_path)
    assert split.fingerprint["train"] != original.fingerprint["train"]
    for i in range(19):
        small, large = split.pictures.open(i), original.pictures.open(i)
        assert min(small.size) == min(40, min(large.size))
        assert small.width / small.height == pytest.approx(large.width / large.height, rel=0.05)
        assert np.asarray(small).mean() == pytest.approx(np.asarray(large).mean(), abs=2)
    assert len(list(loader_of(tmp_path, dataset=shrunk).epoch(0, 2, "shuffle"))) == 3


@pytest.mark.usefixtures("few_per_shard")
def test_packing_goes_on_where_it_stopped(tmp_path: Path) -> None:
    photo_trees.imagenet(tmp_path)
    listing = read_lists(IMAGENET, tmp_path).train
    place = shards.folder_of(tmp_path, "imagenet_lt", listing, None)
    files = [tmp_path / "imagenet_lt" / listing.path(i) for i in range(len(listing))]
    whole, files[10] = files[10], tmp_path / "gone.JPEG"
    with pytest.raises(BenchError, match=r"gone\.JPEG: cannot be packed \(FileNotFoundError"):
        shards.pack(files, place, None, lambda n: None, 1)
    assert shards.find(tmp_path, "imagenet_lt", listing, None) is None, "half a set is none"
    assert len(list(place.iterdir())) == 2
    times = {file: file.stat().st_mtime_ns for file in place.iterdir()}
    seen: list[int] = []
    files[10] = whole
    shards.pack(files, place, None, seen.append, 1)
    assert sum(seen) == 19
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    found = shards.find(tmp_path, "imagenet_lt", listing, None)
    assert found is not None
    assert [found.content(i) for i in range(19)] == [file.read_bytes() for file in files]
    assert found.lengths().tolist() == [file.stat().st_size for file in files]


def damages(place: Path) -> Iterator[tuple[Path, bytes]]:
    whole = (place / "00001.bin").read_bytes()
    yield from ((place / "00001.bin", whole[:cut]) for cut in (0, 7, len(whole) // 2, len(whole) - 1))
    manifest = (place / shards.NAME).read_bytes()
    yield from ((place / shards.NAME, manifest[:cut]) for cut in (0, 1, len(manifest) // 2))
    yield place / shards.NAME, manifest.replace(b'"images": 19', b'"images": 18')
    yield place / shards.NAME, b'{"schema_version": 2}'


@pytest.mark.usefixtures("few_per_shard")
def test_damaged_shards_are_refused_by_name(tmp_path: Path) -> None:
    photo_trees.imagenet(tmp_path)
    place = packed(tmp_path, IMAGENET, None)[0]
    for file, content in damages(place):
        whole = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(
            BenchError, match=rf"{file.name}: .*delete this folder and run `data prepare` again"
        ):
            split_of(tmp_path)
        file.write_bytes(whole)
    shard = place / "00001.bin"
    shard.write_bytes(bytes(len(shard.read_bytes())))  # of the right size, and nothing in it
    with pytest.raises(BenchError, match="not a readable image"):
        list(loader_of(tmp_path).epoch(0, 2, "shuffle"))
