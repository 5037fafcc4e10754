"""Images in memory: the embedded digits, CIFAR's official files, folders, lists and containers of one's own.

Those that stay on disk are not read here: see `bench.data.listing` and `bench.data.streaming`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.cell import DataSet
from bench.data import containers, folder
from bench.data.cache import Arrays, key_of, through_cache
from bench.data.decoding import RULES
from bench.data.listing import listed
from bench.data.lists import read_lists
from bench.data.longtail import class_counts
from bench.errors import BenchError

ARRAYS = ("train_images", "test_images", "train_labels", "test_labels", "class_names")
#: Source -> its class in torchvision.datasets and the folder that this reads.
CIFAR = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
}
CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
ELSEWHERE = "or point --data or LONGTAIL_DATA to where it is"


@dataclass(frozen=True, eq=False)
class Images:
    """A data set as it is, before any tail is cut.

    Attributes:
        train_images: (N, H, W, 3) uint8, in the source's own order; test_images alike.
        train_labels: (N,) int64, from 0 to C-1; test_labels alike.
        class_names: C names, at the index that labels use.
        key: names this content, so that one process uploads it to a device only once.
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
                    f"(there are {classes} classes, from 0 on); mend the labels or name the class"
                )


def tail(
    dataset: DataSet, imbalance_factor: float, data_dir: Path
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return how many training images (C,) each class keeps, the test labels (N,), and the classes' names.

    Of any data set; images that stay on disk need not be there. Errors as of `longtail.class_counts`.
    """
    if dataset.on_disk:
        found = listed(dataset, data_dir)
        labels, test_labels, class_names = found.train.labels, found.test.labels, found.class_names
    else:
        images = read(dataset, data_dir)
        labels, test_labels, class_names = images.train_labels, images.test_labels, images.class_names
    available = np.bincount(labels, minlength=len(class_names))
    return class_counts(dataset, imbalance_factor, available, class_names), test_labels, class_names


def read(dataset: DataSet, data_dir: Path, *, download: bool = False) -> Images:
    """Read a data set from below the data directory; with `download`, fetch CIFAR where it is missing.

    Raises:
        BenchError: it is not there, or damaged; the message names the path and the remedy.
    """
    if dataset.on_disk:
        raise BenchError(f"{dataset.name}: its images stay on disk; see `data check`")
    if dataset.source == "digits":
        return _digits(dataset)
    if dataset.test_per_class is not None:
        raise BenchError(
            f"{dataset.name}: source {dataset.source!r} has a test set of its own; leave out test_per_class"
        )
    if dataset.source in CIFAR:
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
            f"{dataset.name}: the digits have no test set of their own; "
            f"set test_per_class to what to hold out, below {smallest}"
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
    """Read the digits, (1797, 65), 64 pixels and the label, from scikit-learn's files.

    To import it, as its `load_digits` would, takes two seconds in every run.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        return np.array(file.read().replace("\n", ",").strip(",").split(","), dtype=float).reshape(-1, 65)


def _cifar(dataset: DataSet, data_dir: Path, download: bool) -> Images:
    """CIFAR's Python files in their order; their md5 is checked when they are first decoded."""
    class_name, folder_name = CIFAR[dataset.source]
    root = (
        data_dir / folder_name
        if not dataset.md5
        else folder.below(data_dir, dataset.folder or "", dataset.name)
    )
    remedy = f"fetch it with `run_bench.py data {dataset.source} --download` (from {CIFAR_PAGE}), {ELSEWHERE}"
    _require_size(dataset, 32)
    if download and not dataset.md5:
        try:
            _torchvision(class_name)(data_dir, download=True)
        except (OSError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise BenchError(
                f"{root}: download failed ({reason}); get the Python version from {CIFAR_PAGE} "
                f"and unpack it in {data_dir}"
            ) from error
    if dataset.md5:
        remedy = (
            f"{dataset.name} is {dataset.copy_kind or f'a copy of {dataset.copy_of}'}: put its files there"
        )
    if not root.is_dir():
        raise BenchError(f"{root}: no such folder; {remedy}")

    def decode() -> Arrays:
        kind = _torchvision(class_name)
        if dataset.md5:
            kind = _with_files(kind, dataset, root.relative_to(data_dir).as_posix())
        try:
            train, test = kind(data_dir, train=True), kind(data_dir, train=False)
        except RuntimeError as error:
            raise BenchError(f"{_cifar_damage(kind, root)}; {remedy}") from error
        return _arrays(train.data, test.data, train.targets, test.targets, train.classes)

    name = dataset.name if dataset.md5 else dataset.source
    return _cached(data_dir, name, key_of(root, sorted(root.iterdir())), decode)


def _with_files(kind: Any, dataset: DataSet, folder_name: str) -> Any:
    """Make torchvision's class of a CIFAR read files of the same names, with checksums of their own."""

    lines = [line.split(maxsplit=1) for line in dataset.md5]
    known = {name.lstrip("*"): md5 for md5, name in lines}

    def md5(name: str) -> str:
        if name not in known:
            raise BenchError(f"{dataset.name}: md5 lacks {name!r}; give the line of md5sum for each file")
        return known[name]

    return type(
        kind.__name__,
        (kind,),
        {
            "base_folder": folder_name,
            "train_list": [[name, md5(name)] for name, _ in kind.train_list],
            "test_list": [[name, md5(name)] for name, _ in kind.test_list],
            "meta": kind.meta | {"md5": md5(kind.meta["filename"])},
        },
    )


def _cifar_damage(kind: Any, root: Path) -> str:
    """Say which of the official files is missing or not what it should be."""
    official = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    for name, md5 in official:
        if not (root / name).is_file():
            return f"{root / name}: this file is missing"
        with (root / name).open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() != md5:
                return f"{root / name}: damaged (its md5 is not {md5})"
    return f"{root}: changed while it was read"


def _folder(dataset: DataSet, data_dir: Path) -> Images:
    """A tree of the user's below the data directory (see `bench.data.folder`)."""
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
    """The images that list files name, in their order."""
    lists, size = read_lists(dataset, data_dir), dataset.image_size
    files = [listing.files(lists.root) for listing in (lists.train, lists.test)]

    def decode() -> Arrays:
        pixels = (folder.decode({"": some}, size, upright=dataset.upright) for some in files)
        return _arrays(*pixels, lists.train.labels, lists.test.labels, lists.class_names)

    key = key_of(lists.root, [*files[0], *files[1]], lists.said, size, RULES, dataset.upright)
    return _cached(data_dir, _name_of(lists.root, data_dir), key, decode)


def _contained(dataset: DataSet, data_dir: Path) -> Images:
    """The images inside of larger files, in their order."""
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


def _torchvision(class_name: str) -> Any:
    from bench.vision import torchvision  # takes seconds, and with a cache is not needed

    return getattr(torchvision.datasets, class_name)
