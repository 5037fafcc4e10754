"""A split is the same wherever it is loaded, and tells one long tail from another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT

from bench.cell import DataSet
from bench.data.read import sources
from bench.data.sets.catalogue import DATASETS
from bench.data.split import longtail
from bench.data.split.load import load
from bench.errors import BenchError

DIGITS = DATASETS["digits"]


def test_a_split_is_the_tail_of_its_source():
    split, source = load(DIGITS, 10.0, Path()), sources.read(DIGITS, Path())
    assert split.class_counts.tolist() == longtail.exponential(120, 10.0, 10).tolist()
    assert np.bincount(split.labels).tolist() == split.class_counts.tolist()
    assert len(np.unique(split.positions)) == len(split.positions) == split.class_counts.sum()
    assert split.labels.tolist() == source.train_labels[split.positions].tolist()
    assert split.images.shape == (1297, 3, 8, 8)
    assert split.images.dtype == torch.uint8
    np.testing.assert_array_equal(split.images[7].permute(1, 2, 0), source.train_images[7])
    np.testing.assert_array_equal(split.test_images.permute(0, 2, 3, 1), source.test_images)
    assert split.test_labels.tolist() == source.test_labels.tolist()
    assert split.class_names == source.class_names
    assert split.dataset == DIGITS


def test_a_fingerprint_names_the_tail_and_not_the_test_set():
    ten, again, fifty = (load(DIGITS, factor, Path()).fingerprint for factor in (10.0, 10.0, 50.0))
    assert ten == again
    assert ten["train"] != fifty["train"]
    assert ten["test"] == fifty["test"]


def test_another_process_loads_the_same_split():
    code = (
        "from pathlib import Path; from bench.data.split.load import load;"
        "from bench.data.sets.catalogue import DATASETS;"
        "print(load(DATASETS['digits'], 20.0, Path()).fingerprint)"
    )
    there = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert there.stdout.strip() == str(load(DIGITS, 20.0, Path()).fingerprint)


def test_a_tail_that_digits_cannot_give_is_refused():
    with pytest.raises(BenchError, match=r"digits: imbalance factor 500 leaves class 7 '7' without"):
        load(DIGITS, 500.0, Path())
    with pytest.raises(BenchError, match="class 0 '0' has 128 images, but n_max 129"):
        load(DIGITS.model_copy(update={"n_max": 129}), 10.0, Path())


def test_a_tree_of_the_same_images_gives_the_same_picks(tmp_path):
    from PIL import Image

    source = sources.read(DIGITS, tmp_path)
    for part in ("train", "test"):
        images, labels = getattr(source, f"{part}_images"), getattr(source, f"{part}_labels")
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "copy" / part / str(label) / f"{i:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    copy = DataSet(name="copy", source="folder", folder="copy", image_size=8, n_max=120)
    there, here = load(copy, 10.0, tmp_path), load(DIGITS, 10.0, tmp_path)
    assert torch.equal(there.images[there.positions], here.images[here.positions])
    assert there.fingerprint != here.fingerprint  # its positions are others


def test_held_out_images_are_the_training_sets_and_not_the_tails():
    whole = load(DIGITS, 20.0, Path())
    held = load(DIGITS.model_copy(update={"held_out": 5, "n_max": 100}), 20.0, Path())
    assert np.bincount(held.test_labels).tolist() == [5] * 10
    in_training = {image.numpy().tobytes() for image in whole.images}
    in_tail = {image.numpy().tobytes() for image in held.images[held.positions]}
    tested = {image.numpy().tobytes() for image in held.test_images}
    assert tested <= in_training
    assert not tested & in_tail
    assert held.fingerprint["test"] != whole.fingerprint["test"]
    assert held.key != whole.key
    with pytest.raises(BenchError, match=r"besides the 30 held out, but n_max 120 .* lower n_max"):
        load(DIGITS.model_copy(update={"held_out": 30}), 20.0, Path())
