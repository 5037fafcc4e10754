"""Images in memory: the embedded digits, CIFAR's official files, a user's folders, lists and containers.

Images that stay on disk are read by `bench.data.read.listing` and `bench.data.feed.streaming`.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.cell import DataSet
from bench.data.read import cifar, containers, folder
from bench.data.read.cache import Arrays, key_of, through_cache
from bench.data.read.decoding import RULES
from bench.data.read.listing import listed
from bench.data.read.lists import read_lists
from bench.data.split.longtail import class_counts, hold_out
from bench.errors import BenchError

ARRAYS = ("train_images", "test_images", "train_labels", "test_labels", "class_names")


@dataclass(frozen=True, eq=False)
class Images:
    """A whole data set, before a tail is drawn.

    Attributes:
        train_images, test_images: (N, H, W, 3) uint8, in the source's order.
        train_labels, test_labels: (N,) int64, from 0 to C-1.
        class_names: C names, indexed by label.
        key: identifies the content, so that a process uploads it to a device only once.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    key: str

    def __post_init__(self) -> None:
        classes = len(self.class_names)
        for part, labels in (("train", self.train_labels), ("test", self.test_labels)):
            outside = np.flatnonzero((labels < 0) | (labels >= classes))
            if len(outside):
                raise BenchError(
                    f"{self.key}: {part} image {outside[0]} has label {labels[outside[0]]}, out of range "
                    f"(there are {classes} classes, from 0 on); correct the labels or name the class"
                )


def tail(
    dataset: DataSet, imbalance_factor: float, data_dir: Path
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the training images (C,) of each class in the tail, the test labels (N,), and the class names.

    Images that stay on disk need not exist. Errors as of `longtail.class_counts`.
    """
    if dataset.on_disk:
        found = listed(dataset, data_dir)
        labels, test_labels, class_names = found.train.labels, found.test.labels, found.class_names
    else:
        images = read(dataset, data_dir)
        labels, test_labels, class_names = images.train_labels, images.test_labels, images.class_names
    available = np.bincount(labels, minlength=len(class_names))
    if dataset.held_out is not None:
        test_labels = labels[hold_out(dataset, labels, len(class_names))]
    return class_counts(dataset, imbalance_factor, available, class_names), test_labels, class_names


def read(dataset: DataSet, data_dir: Path, *, download: bool = False) -> Images:
    """Read a data set from below the data directory; with `download`, fetch CIFAR where it is missing.

    Raises:
        BenchError: it is missing or damaged; the message has the path and the remedy.
    """
    if dataset.on_disk:
        raise BenchError(f"{dataset.name}: its images stay on disk; see `data check`")
    if dataset.source == "digits":
        return _digits(dataset)
    if dataset.test_per_class is not None:
        raise BenchError(
            f"{dataset.name}: source {dataset.source!r} has its own test set; leave out test_per_class"
        )
    if dataset.source in cifar.CIFAR:
        return _cifar(dataset, data_dir, download)
    if dataset.source == "folder":
        return _folder(dataset, data_dir)
    return _listed(dataset, data_dir) if dataset.source == "list" else _contained(dataset, data_dir)


def _digits(dataset: DataSet) -> Images:
    """Scikit-learn's 1,797 digits; the last `test_per_class` of each class are the test set."""
    _require_size(dataset, 8)
    table, held_out = _digits_table(), dataset.test_per_class
    labels = table[:, -1].astype(np.int64)
    smallest = np.bincount(labels).min()
    if held_out is None or held_out >= smallest:
        raise BenchError(
            f"{dataset.name}: the digits have no test set; set test_per_class to the images of each class to "
            f"hold out, below {smallest}"
        )
    is_test = np.zeros(len(labels), bool)
    for c in range(10):
        is_test[np.flatnonzero(labels == c)[-held_out:]] = True
    gray = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=-1)
    return Images(
        train_images=images[~is_test],
        train_labels=labels[~is_test],
        test_images=images[is_test],
        test_labels=labels[is_test],
        class_names=tuple(map(str, range(10))),
        key=f"digits-{held_out}",
    )


def _digits_table() -> np.ndarray:
    """Read the digits, (1797, 65): 64 pixels and the label, from scikit-learn's files.

    Its `load_digits` would import scikit-learn, which takes two seconds in every run.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        return np.array(file.read().replace("\n", ",").strip(",").split(","), dtype=float).reshape(-1, 65)


def _cifar(dataset: DataSet, data_dir: Path, download: bool) -> Images:
    """CIFAR's Python files in their order; checksums are verified when they are first decoded."""
    files = cifar.files_of(dataset, data_dir)
    _require_size(dataset, 32)
    if download and not files.md5:
        cifar.fetch(files, data_dir)
    if not files.root.is_dir():
        raise BenchError(f"{files.root}: no such folder; {files.remedy}")
    key = key_of(files.root, sorted(files.root.iterdir()))
    return _cached(data_dir, files.name, key, lambda: _arrays(*cifar.decode(files, data_dir)))


def _folder(dataset: DataSet, data_dir: Path) -> Images:
    """A user's tree below the data directory (see `bench.data.read.folder`)."""
    root, size = folder.root_of(dataset, data_dir), dataset.image_size
    parts = folder.list_tree(root, dataset.parts)
    train, test = parts["train"], parts["test"]

    def decode() -> Arrays:
        return _arrays(
            *(folder.decode(part.classes, size, upright=dataset.upright) for part in (train, test)),
            *(folder.labels_of(part.classes) for part in (train, test)),
            list(train.classes),
        )

    key = key_of(root, [*train.files, *test.files], size, RULES, dataset.upright)
    return _cached(data_dir, _name_of(root, data_dir), key, decode)


def _listed(dataset: DataSet, data_dir: Path) -> Images:
    """The images of list files, in their order."""
    lists, size = read_lists(dataset, data_dir), dataset.image_size
    files = [listing.files(lists.root) for listing in (lists.train, lists.test)]

    def decode() -> Arrays:
        pixels = (folder.decode({"": some}, size, upright=dataset.upright) for some in files)
        return _arrays(*pixels, lists.train.labels, lists.test.labels, lists.class_names)

    key = key_of(lists.root, [*files[0], *files[1]], lists.content, size, RULES, dataset.upright)
    return _cached(data_dir, _name_of(lists.root, data_dir), key, decode)


def _contained(dataset: DataSet, data_dir: Path) -> Images:
    """The images inside larger files, in their order."""
    root, size = containers.root_of(dataset, data_dir), dataset.image_size

    def decode() -> Arrays:
        found = containers.index(dataset, root, data_dir)
        labels = found.train.labels, found.test.labels
        pixels = (
            containers.decode(dataset, root, part, len(some))
            for part, some in zip(("train", "test"), labels, strict=True)
        )
        return _arrays(*pixels, *labels, found.class_names)

    key = key_of(root, [], containers.key(dataset, root), size, RULES, dataset.upright)
    return _cached(data_dir, _name_of(root, data_dir), key, decode)


def _name_of(root: Path, data_dir: Path) -> str:
    return root.relative_to(data_dir).as_posix().replace("/", "-")


def _cached(data_dir: Path, name: str, key: str, decode: Callable[[], Arrays]) -> Images:
    arrays = through_cache(data_dir / ".cache" / f"{name}-{key}", ARRAYS, decode)
    class_names = tuple(map(str, arrays.pop("class_names")))
    return Images(**arrays, class_names=class_names, key=f"{name}-{key}")


def _arrays(*arrays: Any) -> Arrays:
    train, test, train_labels, test_labels, names = map(np.asarray, arrays)
    labels = train_labels.astype(np.int64), test_labels.astype(np.int64)
    return dict(zip(ARRAYS, (train, test, *labels, names), strict=True))


def _require_size(dataset: DataSet, size: int) -> None:
    if dataset.image_size != size:
        raise BenchError(
            f"{dataset.name}: image_size is {dataset.image_size}, but {dataset.source} has "
            f"{size}x{size} images; set image_size: {size}"
        )
