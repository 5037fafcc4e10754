"""Recognising published images by labels and pixels alone, in any order and format.

An image and its label are hashed together, and then the sorted hashes. So the official files, a folder of PNG
files and a parquet file of the same images have the same hash. The hashes of the papers' subsets are in
`subsets.csv`, which is the output of `run_bench.py data subsets`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.cell import DataSet
from bench.data.read.cache import Arrays, through_cache
from bench.data.sets.catalogue import DATASETS
from bench.data.split.longtail import exponential, select

if TYPE_CHECKING:
    from bench.data.read.sources import Images

FILE = Path(__file__).with_name("subsets.csv")
COLUMNS = ("dataset", "part", "imbalance_factor", "images", "hash")

#: The data sets of the catalogue that are recognised by their images.
RECOGNISABLE = ("cifar10", "cifar100_rebuilt")
#: The imbalance factors of the papers' subsets.
FACTORS = (10, 20, 50, 100, 200)
#: How the papers draw a subset.
DRAW = "RandomState(0), as in LDAM-DRW and followers"

_BYTES = 16  # of a digest


@dataclass(frozen=True)
class Recognised:
    """Recognised images: their published data set, and how their long tail was drawn.

    Attributes:
        dataset: of the catalogue.
        draw: "original" is the papers'; "unknown" if the hash of the papers' draw is not known.
    """

    dataset: DataSet
    imbalance_factor: float
    draw: Literal["original", "another", "unknown"]

    @property
    def published(self) -> str:
        """The name of the data set in the literature."""
        return self.dataset.copy_of or self.dataset.name

    @property
    def copy(self) -> str:
        """How the images relate to the papers': a value of `data_copy` in the published table."""
        drawn = {"another": "same images, another draw", "unknown": "same images, draw not known"}
        return drawn.get(self.draw, "original")

    @property
    def footnote(self) -> str | None:
        """The footnote to a number on these images."""
        return self.dataset.copy_kind

    def describe(self) -> str:
        """Return a sentence about the images."""
        if self.imbalance_factor == 1:
            return f"all training images of {DATASETS[self.published].title.removesuffix('-LT')}"
        name = f"{DATASETS[self.published].title}, imbalance factor {self.imbalance_factor:g}"
        if self.draw == "another":
            return f"{name}: {self.copy} (the papers' is {DRAW}), so it is compared with no published number"
        if self.draw == "unknown":
            return f"{name}: the same images; whether the papers drew these is not known"
        return f"{name}, {DRAW}" + (f"; {self.footnote}" if self.footnote else "")


def recognise(
    hashes: Mapping[str, str], class_counts: Sequence[int], imbalance_factor: float
) -> Recognised | None:
    """Recognise a training set and its test set as published images, None if they are not.

    Args:
        hashes: as of `hashes_of`.
        class_counts: (C,) training images of each class.
        imbalance_factor: of the tail.
    """
    for name, known in _known().items():
        if known["test", None] != hashes.get("test"):
            continue
        dataset = DATASETS[name]
        for (part, factor), code in known.items():
            if part == "subset" and code == hashes.get("train"):
                return Recognised(dataset, factor or 1, "original")
        counts = exponential(dataset.n_max or 0, imbalance_factor, len(class_counts))
        if known["set", None] != hashes.get("set") or list(class_counts) != counts.tolist():
            continue
        if imbalance_factor == 1:
            return Recognised(dataset, 1, "original")
        certain = dataset.copy_of is None and ("subset", imbalance_factor) in known
        return Recognised(dataset, imbalance_factor, "another" if certain else "unknown")
    return None


def is_published(hashes: Mapping[str, str]) -> bool:
    """Tell whether a training set, whole or a subset of the papers, and its test set are published."""
    return any(
        known["test", None] == hashes["test"]
        and hashes["set"] in [code for (part, _), code in known.items() if part != "test"]
        for known in _known().values()
    )


def digests(labels: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return a digest (n, 16) uint8 of each image (n, H, W, 3) uint8 with its shape and label."""
    start = hashlib.blake2b(repr(pixels.shape[1:]).encode(), digest_size=_BYTES)
    found = bytearray()
    for label, image in zip(labels.tolist(), pixels, strict=True):
        one = start.copy()
        one.update(b"%d\0" % label)
        one.update(np.ascontiguousarray(image).data)
        found += one.digest()
    return np.frombuffer(bytes(found), np.uint8).reshape(-1, _BYTES)


def order_free(digests: np.ndarray) -> str:
    """Hash digests (n, 16), in any order, to 16 hexadecimal digits."""
    rows = np.ascontiguousarray(digests).view(f"S{_BYTES}").ravel()
    return hashlib.sha256(np.sort(rows).tobytes()).hexdigest()[:16]


def hashes_of(source: Images, positions: np.ndarray, data_dir: Path) -> dict[str, str]:
    """Return the hashes of the training "set", of its subset "train" at `positions` (n,), and of "test".

    Each image is hashed once for all subsets; the digests are cached beside the images.
    """

    def hashed() -> Arrays:
        return {
            "train_digests": digests(source.train_labels, source.train_images),
            "test_digests": digests(source.test_labels, source.test_images),
        }

    home = data_dir / ".cache" / source.key
    each = through_cache(home, ("train_digests", "test_digests"), hashed) if home.is_dir() else hashed()
    train = each["train_digests"]
    return {
        "set": order_free(train),
        "train": order_free(train[positions]),
        "test": order_free(each["test_digests"]),
    }


def rows(data_dir: Path, names: Sequence[str] = RECOGNISABLE) -> Iterator[tuple[str, ...]]:
    """Yield the rows of `subsets.csv`, computed from the data sets in `data_dir`.

    Raises:
        BenchError: a data set is missing.
    """
    from bench.data.read.sources import read

    for name in names:
        source = read(DATASETS[name], data_dir)
        labels, classes = source.train_labels, len(source.class_names)
        whole = np.arange(len(labels))
        codes = hashes_of(source, whole, data_dir)
        yield name, "set", "", str(len(labels)), codes["set"]
        yield name, "test", "", str(len(source.test_labels)), codes["test"]
        for factor in FACTORS:
            subset = select(labels, exponential(DATASETS[name].n_max or 0, factor, classes))
            code = hashes_of(source, subset, data_dir)["train"]
            yield name, "subset", str(factor), str(len(subset)), code


@cache
def _known() -> dict[str, dict[tuple[str, float | None], str]]:
    """Read the hashes by data set, then by part and imbalance factor."""
    found: dict[str, dict[tuple[str, float | None], str]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            factor = float(row["imbalance_factor"]) if row["imbalance_factor"] else None
            found.setdefault(row["dataset"], {})[row["part"], factor] = row["hash"]
    return found
