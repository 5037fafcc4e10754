"""Images inside larger files: parquet, `datasets` on disk, WebDataset shards.

These files are read sequentially. Names, labels and hashes of the images are cached as an index below the
data directory; for streaming, `data prepare` packs the images into shards, which allow random access.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.read import decoding
from bench.data.read.cache import Arrays, key_of, through_cache
from bench.data.read.folder import below, fit, part_names
from bench.data.read.lists import Listing, ListSet
from bench.data.read.readers import KINDS, class_names, files_called, files_in, items
from bench.errors import BenchError, did_you_mean


def root_of(dataset: DataSet, data_dir: Path) -> Path:
    """Return the folder of a data set of containers.

    Raises:
        BenchError: it does not exist.
    """
    root = below(data_dir, dataset.folder or "", dataset.name)
    if not root.is_dir():
        raise BenchError(
            f"{root}: no such folder for {dataset.name!r}; put its {KINDS[dataset.source]} files there, "
            "or point --data elsewhere"
        )
    return root


def key(dataset: DataSet, root: Path) -> str:
    """Hash the names, sizes and times of a data set's files, and its parts and columns."""
    return key_of(root, files_in(dataset, root), str(dataset.parts), str(dataset.columns))


def index(dataset: DataSet, root: Path, data_dir: Path) -> ListSet:
    """Return the parts of a data set: names, labels from 0 to C-1, and hashes of the encoded images.

    Raises:
        BenchError: as of `items`, or a class has no training image, or a label has no class.
    """
    folder = data_dir / ".cache" / f"{root.name}-{key(dataset, root)}-index"
    parts = part_names(dataset.parts, lambda name: bool(files_called(dataset, root, name)))
    names = tuple(f"{part}_{what}" for part in parts for what in ("names", "labels", "sha256"))
    read = through_cache(folder, (*names, "class_names"), lambda: _indexed(dataset, root, parts))
    listed = {
        part: Listing(
            root / part,
            read[f"{part}_names"],
            read[f"{part}_labels"],
            np.arange(len(read[f"{part}_labels"])),
            read[f"{part}_sha256"],
        )
        for part in parts
    }
    names = tuple(map(str, read["class_names"]))
    return ListSet(root, listed["train"], listed["test"], listed.get("val"), names)


def decode(dataset: DataSet, root: Path, part: str, count: int) -> np.ndarray:
    """Decode all images of a part to (count, size, size, 3) uint8 RGB, resized by `fit`."""
    size = dataset.image_size
    pixels = np.empty((count, size, size, 3), np.uint8)
    for i, item in enumerate(items(dataset, root, part)):
        try:
            pixels[i] = np.asarray(fit(decoding.decode(item.content, upright=dataset.upright), size))
        except Exception as error:  # the exception depends on the format
            raise BenchError(
                f"{root}: {part} image {item.name}: not a readable image ({type(error).__name__}: {error}); "
                "replace or remove it"
            ) from error
    return pixels


# -- labels ----------------------------------------------------------------------------------------
def _indexed(dataset: DataSet, root: Path, parts: Mapping[str, str]) -> Arrays:
    found: Arrays = {}
    labels: dict[str, list[int | str]] = {}
    for part in parts:
        names, hashes, labels[part] = [], bytearray(), []
        for item in items(dataset, root, part):
            names.append(item.name.encode())
            hashes += hashlib.sha256(item.content).digest()
            labels[part].append(item.label)
        if not names:
            raise BenchError(f"{root}: no image in {parts[part]}")
        found[f"{part}_names"] = np.array(names)
        found[f"{part}_sha256"] = np.frombuffer(bytes(hashes), np.uint8).reshape(-1, 32)
    classes = _classes(root, labels["train"], class_names(dataset, root))
    numbers = {name: number for number, name in enumerate(classes)}
    for part, some in labels.items():
        numbered = [_number(root, parts[part], one, classes, numbers) for one in some]
        found[f"{part}_labels"] = np.array(numbered, np.int64)
    counts = np.bincount(found["train_labels"], minlength=len(classes))
    for empty in np.flatnonzero(counts == 0):
        raise BenchError(
            f"{root}: no training image of class {empty} {classes[empty]!r}; labels must be numbered from 0 "
            "on without gaps"
        )
    return {**found, "class_names": np.array(classes)}


def _classes(root: Path, labels: Sequence[int | str], known: Sequence[str] | None) -> list[str]:
    """Return the class names: the sorted labels if they are words, else the `known` ones, else numbers."""
    words = {label for label in labels if isinstance(label, str)}
    if words and len(words) != len(set(labels)):
        raise BenchError(f"{root}: some labels are words and some are numbers; make them all of one kind")
    classes = sorted(words) or list(known or map(str, range(max(map(int, labels)) + 1)))
    if len(classes) < 2:
        raise BenchError(f"{root}: one class only; at least two are needed")
    return classes


def _number(
    root: Path, part: str, label: int | str, classes: Sequence[str], numbers: Mapping[str, int]
) -> int:
    number = numbers.get(label, -1) if isinstance(label, str) else label
    if not 0 <= number < len(classes):
        unlabelled = "; it may have no labels: name another one with parts" if label == -1 else ""
        near = did_you_mean(label, classes) if isinstance(label, str) else ""
        raise BenchError(
            f"{root}: {part} has label {label!r}, but there are {len(classes)} classes{near}{unlabelled}"
        )
    return number
