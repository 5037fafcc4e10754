"""Data sets given by list files of images and labels, as the long-tail literature publishes them.

The lists of ImageNet-LT, iNaturalist 2018 and Places-LT have `relative/path.jpg label` on each line, those of
mini-ImageNet-LT are CSV (`path,label`, with or without the header `img,label`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from bench.cell import DataSet
from bench.data.read.folder import below
from bench.errors import BenchError

LONGEST_PATH = 500  # characters
LARGEST_LABEL = 999_999


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of one list file, in its order.

    Attributes:
        file: the list file, for messages.
        paths: (n,) bytes (UTF-8) below the data set's folder; not a list of strings, whose reference counts
            would make worker processes copy it.
        labels: (n,) int64.
        lines: (n,) line of each image in the file, from 1.
        hashes: (n, 32) uint8, sha256 of the encoded images, if these are inside larger files.
    """

    file: Path
    paths: np.ndarray
    labels: np.ndarray
    lines: np.ndarray
    hashes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, i: int) -> str:
        """Return the path of one image, as listed."""
        return bytes(self.paths[i]).decode()

    def files(self, root: Path) -> list[Path]:
        """Return the paths of the images, which are below `root`."""
        return [root / os.fsdecode(path) for path in self.paths.tolist()]

    def fault(self, i: int, message: str) -> BenchError:
        """Return an error about the line of one image."""
        return BenchError(f"{self.file}:{self.lines[i]}: {message}")


@dataclass(frozen=True, eq=False)
class ListSet:
    """The lists of a data set; labels are from 0 to C-1, and each class has a training image."""

    root: Path
    train: Listing
    test: Listing
    val: Listing | None
    class_names: tuple[str, ...]

    @property
    def content(self) -> tuple[object, ...]:
        """The content of the lists without the paths."""
        return tuple(one.labels.tolist() for one in self.parts.values()), self.class_names

    @property
    def parts(self) -> dict[str, Listing]:
        """The lists by the names of their parts."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: listing for name, listing in parts.items() if listing is not None}


def read_list(file: Path) -> Listing:
    """Read a list file: spaces or a tab before the label, in a .csv a comma; blank lines are skipped.

    Raises:
        BenchError: it is missing or not UTF-8 text, a line is not a path and a label, or a path leads out of
            the folder.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BenchError(f"{file}: {error.strerror}; put the list file there") from error
    except UnicodeDecodeError as error:
        number = bytes(error.object[: error.start]).count(b"\n") + 1
        raise BenchError(f"{file}:{number}: not UTF-8 text; give a list file, not an archive") from None
    comma = "," if file.suffix == ".csv" else None
    paths, labels, lines = [], [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        path, label = _split(line, comma)
        if number == 1 and comma and label.lower() == "label":
            continue  # a header
        paths.append(_checked(path, file, number).encode())
        labels.append(_number(label, file, number))
        lines.append(number)
    if not paths:
        raise BenchError(f"{file}: no image in this list; fetch it again")
    return Listing(file, np.array(paths), np.array(labels, np.int64), np.array(lines, np.int64))


def read_lists(dataset: DataSet, data_dir: Path) -> ListSet:
    """Read the lists of a data set, without looking for its images.

    Raises:
        BenchError: the folder or a list is missing or wrong, a class has no training image, or a label
            is out of range.
    """
    assert dataset.lists is not None
    assert dataset.folder is not None
    lists, root = dataset.lists, below(data_dir, dataset.folder, dataset.name)
    if not root.is_dir():
        raise BenchError(
            f"{root}: no such folder for {dataset.name!r}; put its images and lists there, or point --data "
            f"elsewhere; `run_bench.py data check {dataset.name}` shows where to obtain a published set"
        )
    parts = {"train": lists.train, "val": lists.val, "test": lists.test}
    read = {part: read_list(below(root, name, dataset.name)) for part, name in parts.items() if name}
    train = read["train"]
    folders = _class_folders(train)
    names = folders
    if lists.classes:
        names = _class_names(below(root, lists.classes, dataset.name), len(folders))
    for listing in read.values():
        outside = np.flatnonzero(listing.labels >= len(names))
        if len(outside):
            raise listing.fault(
                outside[0],
                f"label {listing.labels[outside[0]]}, but {train.file.name} has {len(names)} classes",
            )
    found = {part: locate(root, listing, folders) for part, listing in read.items()}
    return ListSet(root, train=found["train"], test=found["test"], val=found.get("val"), class_names=names)


def locate(root: Path, listing: Listing, folders: tuple[str, ...]) -> Listing:
    """Return a list with the actual paths of its images below `root`.

    ImageNet's validation images come flat (val/x.JPEG), and many users sort them into class folders
    (val/n01440764/x.JPEG); lists exist for both. The first image decides for all.
    """
    path, label = listing.path(0), int(listing.labels[0])
    if (root / path).exists():
        return listing
    if (root / _flat(path)).exists():
        moved = [_flat(listing.path(i)) for i in range(len(listing))]
    elif (root / _sorted(path, folders[label])).exists():
        labels = listing.labels.tolist()
        moved = [_sorted(listing.path(i), folders[label]) for i, label in enumerate(labels)]
    elif "\\" in path:
        raise listing.fault(0, f"{path[:40]!r}: no such file; write / between folders, not \\")
    else:
        return listing
    return replace(listing, paths=np.array([path.encode() for path in moved]))


def _flat(path: str) -> str:
    """Remove the last folder of a path."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.dirname(folder), name)


def _sorted(path: str, folder: str) -> str:
    """Insert the folder of its class into the path of an image."""
    head, name = os.path.split(path)
    return os.path.join(head, folder, name)


def _class_folders(train: Listing) -> tuple[str, ...]:
    """Return class names: the images' folders without their common path if these are unique, else numbers.

    Raises:
        BenchError: a class between 0 and the largest label has no training image.
    """
    counts = np.bincount(train.labels)
    if len(counts) < 2:
        raise BenchError(f"{train.file}: one class only; at least two are needed")
    for label in np.flatnonzero(counts == 0):
        raise BenchError(
            f"{train.file}: no image of class {label}, though labels go up to {len(counts) - 1}; "
            "labels must be numbered from 0 on without gaps"
        )
    folders: list[set[str]] = [set() for _ in counts]
    for path, label in zip(train.paths.tolist(), train.labels.tolist(), strict=True):
        folders[label].add(os.path.dirname(path.decode()))
    whole = [next(iter(some)) for some in folders]
    if any(len(some) > 1 for some in folders) or len(set(whole)) < len(whole) or "" in whole:
        return tuple(map(str, range(len(counts))))
    start = os.path.commonpath(whole)
    return tuple(os.path.relpath(folder, start) if start else folder for folder in whole)


def _class_names(file: Path, classes: int) -> tuple[str, ...]:
    """Read class names, one a line."""
    try:
        names = file.read_text("utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{file}: not readable ({type(error).__name__}); give a name per line") from None
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name or not name.isprintable() or name in seen:
            raise BenchError(f"{file}:{number}: {name[:40]!r} is not a name, or is listed twice")
        seen.add(name)
    if len(names) != classes:
        raise BenchError(f"{file}: {len(names)} names for {classes} classes; write one on each line")
    return tuple(names)


def _split(line: str, comma: str | None) -> tuple[str, str]:
    path, *label = line.strip().rsplit(comma, 1)
    return (path.strip(), label[0].strip()) if label else ("", path)


def _checked(path: str, file: Path, number: int) -> str:
    if not path:
        _refuse(file, number, "should be an image's path and its label")
    if len(path) > LONGEST_PATH:
        _refuse(file, number, f"a path of {len(path)} characters; the most is {LONGEST_PATH}")
    if not path.isprintable():
        _refuse(file, number, f"{path[:40]!r} has characters that no file name should have")
    if path.startswith("/") or ".." in path.split("/"):
        _refuse(file, number, f"{path[:40]!r} leaves the data set's folder; give a path below it")
    return path


def _number(label: str, file: Path, number: int) -> int:
    if not (label.isascii() and label.isdigit() and len(label) <= 9 and int(label) <= LARGEST_LABEL):
        _refuse(file, number, f"the label should be a number from 0 to {LARGEST_LABEL:,}, got {label[:40]!r}")
    return int(label)


def _refuse(file: Path, number: int, message: str) -> NoReturn:
    raise BenchError(f"{file}:{number}: {message}")
