"""Images held out of any training set, by number or share: never trained on, and none of the test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import photo_trees
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.cell import DataSet
from bench.data.read import sources
from bench.data.sets.catalogue import DATASETS
from bench.data.split import longtail
from bench.data.split.load import InMemory, OnDisk, load
from bench.errors import BenchError

DIGITS = DATASETS["digits"].model_copy(update={"held_out": 20, "n_max": 100})
COUNTS = np.array(photo_trees.COUNTS)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20), st.floats(0.001, 0.999))
def test_a_share_leaves_every_class_an_image_and_takes_one_where_it_can(counts, share):
    held = longtail.held_counts(share, np.array(counts))
    for count, taken in zip(counts, held, strict=True):
        assert taken == min(max(int(count * share + 1e-9), 1), count - 1)
        assert taken < count


@pytest.mark.parametrize(("held_out", "taken"), [(3, [3, 3, 3]), (0.2, [20, 3, 1]), (None, [0, 0, 0])])
def test_a_number_is_of_each_class_and_a_share_of_its_images(held_out, taken):
    assert longtail.held_counts(held_out, np.array([100, 15, 6])).tolist() == taken


def test_nothing_to_hold_out_is_reported():
    singles = DataSet(name="mine", source="folder", profile="natural", held_out=0.5)
    with pytest.raises(BenchError, match=r"mine: held_out 0\.5 holds out no image; raise it"):
        longtail.hold_out(singles, np.arange(3), 3)


@pytest.mark.parametrize("held_out", [0, 0.0, 1.0, -1, 1.5])
def test_neither_nothing_nor_everything_is_held_out(held_out):
    with pytest.raises(ValidationError):
        DataSet(name="mine", source="digits", held_out=held_out)


def test_a_number_is_part_of_the_identity_as_it_always_was():
    assert DIGITS.identity()["held_out"] == 20
    assert "held_out" not in DATASETS["digits"].identity()


def contents(images):
    return {image.tobytes() for image in np.asarray(images)}


def test_a_cut_tail_and_what_is_held_out_of_it_share_no_image_and_no_test_image_is_looked_at(monkeypatch):
    split = load(DIGITS, 20.0, Path())
    whole = sources.read(DIGITS, Path())
    held = contents(split.test_images.permute(0, 2, 3, 1))
    assert held <= contents(whole.train_images)
    assert not held & contents(split.images[split.positions].permute(0, 2, 3, 1))
    assert np.bincount(split.test_labels).tolist() == [20] * 10

    other = replace(whole, test_images=whole.test_images[::-1] // 2, test_labels=whole.test_labels[::-1])
    monkeypatch.setattr(sources, "read", lambda *_: other)
    again = load(DIGITS, 20.0, Path())
    assert again.fingerprint == split.fingerprint
    assert torch.equal(again.test_images, split.test_images)


def test_a_tree_with_a_natural_tail_gives_a_share(tmp_path):
    split = load(tree(tmp_path), 1.0, tmp_path)
    assert isinstance(split, InMemory)
    assert split.class_counts.tolist() == [8, 4, 1]
    assert np.bincount(split.test_labels, minlength=3).tolist() == [2, 1, 1]
    tail = contents(split.images[split.positions])
    assert not tail & contents(split.test_images)
    assert len(tail | contents(split.test_images)) == 10 + 5 + 2


def test_a_tree_that_is_streamed_gives_the_same_images(tmp_path):
    in_memory = load(tree(tmp_path), 1.0, tmp_path)
    streamed = load(tree(tmp_path).model_copy(update={"streamed": True}), 1.0, tmp_path)
    assert isinstance(streamed, OnDisk)
    assert streamed.class_counts.tolist() == in_memory.class_counts.tolist()
    for part, images in (
        (streamed.pictures, in_memory.images[in_memory.positions]),
        (streamed.test_pictures, in_memory.test_images),
    ):
        pixels = [np.asarray(part.open(place)).transpose(2, 0, 1) for place in range(len(part))]
        np.testing.assert_array_equal(pixels, images)


def tree(data_dir: Path) -> DataSet:
    """Write images of three classes, all of different colours: 10, 5 and 2 to train on, one each to test."""
    from PIL import Image

    colours = iter(range(1, 250))
    for part, counts in (("train", (10, 5, 2)), ("test", (1, 1, 1))):
        for label, count in enumerate(counts):
            folder = data_dir / "mine" / part / f"c{label}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (next(colours), 0, 0)).save(folder / f"{number}.png")
    return DataSet(
        name="mine", source="folder", folder="mine", image_size=8, profile="natural", held_out=0.25
    )


def test_list_files_give_a_share_of_their_training_list(tmp_path):
    photo_trees.places(tmp_path)
    whole = load(DATASETS["places_lt"], 1.0, tmp_path)
    asked = DATASETS["places_lt"].model_copy(update={"held_out": 0.3})
    split = load(asked, 1.0, tmp_path)
    assert isinstance(whole, OnDisk)
    assert isinstance(split, OnDisk)
    held = longtail.held_counts(0.3, COUNTS)
    assert split.class_counts.tolist() == (COUNTS - held).tolist()
    assert np.bincount(split.test_labels).tolist() == held.tolist()
    parts = [set(part.paths.tolist()) for part in (split.pictures, split.test_pictures)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(whole.pictures.paths.tolist())
    assert split.fingerprint["test"] != whole.fingerprint["test"]
    counts, labels, _ = sources.tail(asked, 1.0, tmp_path)
    assert counts.tolist() == split.class_counts.tolist()
    assert sorted(labels) == sorted(split.test_labels)
