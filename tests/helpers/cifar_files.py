"""Small files of CIFAR's format."""

from __future__ import annotations

import csv
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench.cell import DataSet
from bench.data.sets import subsets
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import Split


def write_cifar(folder: Path) -> DataSet:
    """Files of CIFAR-100's format, which are not the official ones."""
    rng, folder = np.random.default_rng(0), folder / "mine"
    folder.mkdir(parents=True)
    for name, count in (("train", 40), ("test", 20)):
        images = rng.integers(0, 256, (count * 10, 3072), np.uint8)
        content = {"data": images, "fine_labels": list(range(10)) * count}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {c}" for c in range(10)]}))
    lines = subprocess.run(["md5sum", "train", "test", "meta"], cwd=folder, capture_output=True, text=True)
    return DataSet(
        name="mine",
        source="cifar100",
        folder="mine",
        copy_of="cifar100",
        copy_kind="made up",
        comparable=True,
        md5=tuple(lines.stdout.splitlines()),
    )


FACTOR = 10.0


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """Files of CIFAR's format, which are the published ones in this test."""
    dataset = write_cifar(tmp_path).model_copy(update={"title": "Toys-LT", "n_max": 40})
    original = dataset.model_copy(update={"copy_of": None, "copy_kind": None, "comparable": False})
    monkeypatch.setitem(DATASETS, "mine", original)
    known = tmp_path / "subsets.csv"
    monkeypatch.setattr(subsets, "FILE", known)
    monkeypatch.setattr(subsets, "FACTORS", (FACTOR,))
    with known.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(subsets.COLUMNS)
        lines.writerows(subsets.rows(tmp_path, ["mine"]))
    subsets._known.cache_clear()
    yield dataset
    subsets._known.cache_clear()


def recognised(split: Split, factor: float = FACTOR) -> subsets.Recognised | None:
    return subsets.recognise(split.image_hashes, split.class_counts.tolist(), factor)
