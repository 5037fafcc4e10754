"""A folder tree of images: `<root>/{train,test}/<class>/<image>`, sorted by class, then by file name.

Sub-folders of a class belong to it. A file is an image by its suffix, or else by how it begins (see
`bench.data.read.decoding`); names that begin with a dot are hidden and not looked at, and all other files
that are no images are passed over and told.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps

from bench.cell import DataSet, Parts
from bench.data.read import decoding
from bench.errors import BenchError, did_you_mean

#: Makes a square of so many pixels of an image.
Frame = Callable[[Image.Image, int], Image.Image]

#: What a test set is called that no recipe gives a name, in this order.
TESTS = ("test", "validation", "val")

MOST_NAMED = 5  # files that are passed over


@dataclass(frozen=True)
class Part:
    """The images of a part by class, in order, and the files in it that are no images of a class."""

    classes: dict[str, list[Path]]
    passed_over: list[Path]

    @property
    def files(self) -> list[Path]:
        """All images, class after class."""
        return [path for images in self.classes.values() for path in images]


def list_images(part: Path) -> Part:
    """Return the images of each class folder in `part`, both sorted by name.

    Raises:
        BenchError: there is no such folder, fewer than two classes, a class folder without an image or with a
            name that is no text, or an image of a kind that Pillow does not read here.
    """
    if not part.is_dir():
        raise BenchError(f"{part}: no such folder; it should hold a folder of images per class")
    names: list[str] = []
    loose: list[str] = []
    for entry in sorted(os.scandir(part), key=lambda entry: entry.name):
        if not entry.name.startswith("."):
            (names if entry.is_dir() else loose).append(entry.name)
    if len(names) < 2:
        raise BenchError(
            f"{part}: {len(names)} class folders ({', '.join(names) or 'none'}); two are needed at least"
        )
    found = Part({}, [part / name for name in loose])
    for name in names:
        if not _is_text(name):
            raise BenchError(f"{part / name}: the name of this class is not UTF-8 text; rename the folder")
        found.classes[name], others = files_in(part / name)
        found.passed_over.extend(others)
        if not found.classes[name]:
            raise BenchError(
                f"{part / name}: no image in this class folder ({told_suffixes()}); fill it or remove it"
            )
    return found


def files_in(folder: Path, but: Collection[Path] = ()) -> tuple[list[Path], list[Path]]:
    """Return the images in a folder and below it, and the other files, both sorted by their paths in it.

    Args:
        but: folders below it that are left out, having a meaning of their own.
    """
    images: list[tuple[str, Path]] = []
    others: list[tuple[str, Path]] = []
    seen: set[str] = set()
    for place, inside, names in os.walk(folder, followlinks=True, onerror=_refuse):
        home, real, within = Path(place), os.path.realpath(place), place[len(str(folder)) :]
        if real in seen:  # a link that leads back
            inside.clear()
            continue
        seen.add(real)
        inside[:] = [name for name in inside if not name.startswith(".") and home / name not in but]
        for name in names:
            if not name.startswith("."):
                path = home / name
                kind = images if decoding.is_image(path) else others
                kind.append((os.path.join(within, name), path))
    return [path for _, path in sorted(images)], [path for _, path in sorted(others)]


def told_suffixes() -> str:
    """Name the usual suffixes of images."""
    usual = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".gif", ".avif")
    return ", ".join(end for end in usual if end in decoding.suffixes()) + " and whatever else Pillow reads"


def passed_over(files: Collection[Path]) -> list[str]:
    """Say which files were not read, for they are no images of a class: a line, or none."""
    if not files:
        return []
    kinds = Counter(path.suffix.lower() or "no suffix" for path in files)
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(MOST_NAMED))
    some = ", ".join(str(path) for path in list(files)[:MOST_NAMED]) + (
        ", ..." if len(files) > MOST_NAMED else ""
    )
    return [f"{len(files):,} files are no images of a class and are not read ({told}): {some}"]


def below(data_dir: Path, folder: str, of: str) -> Path:
    """Return the place of a folder of the data set `of`, which must lie below the data directory."""
    inside = os.path.normpath(folder)
    if os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir:
        raise BenchError(
            f"{of}: folder {folder!r} leaves the data directory; "
            "give a path below it (a symbolic link there may lead elsewhere)"
        )
    return data_dir / inside


def part_names(parts: Parts | None, is_there: Callable[[str], bool]) -> dict[str, str]:
    """Return what "train" and "test", and "val" if it is asked for, are called in a data set."""
    asked = parts or Parts()
    test = asked.test or next(filter(is_there, TESTS), TESTS[0])
    return {"train": asked.train, "test": test} | ({"val": asked.val} if asked.val else {})


def root_of(dataset: DataSet, data_dir: Path) -> Path:
    """Return the folder of a data set that is a tree.

    Raises:
        BenchError: it is not there.
    """
    if not dataset.folder:
        raise BenchError(f"{dataset.name}: source 'folder' needs `folder`, a path below --data")
    root = below(data_dir, dataset.folder, dataset.name)
    if not root.is_dir():
        raise BenchError(
            f"{root}: no such folder for {dataset.name!r}; put train/<class>/*.jpg and "
            "test/<class>/*.jpg there, or point --data or LONGTAIL_DATA to where it is"
        )
    return root


def list_tree(root: Path, parts: Parts | None = None) -> dict[str, Part]:
    """Return the parts of a tree, as of `part_names`, of the same classes.

    A class may be without test images, be it without a folder there or with an empty one: what is asked of
    the class in the test is then n/a.
    """
    names = part_names(parts, lambda name: (root / name).is_dir())
    first = root / names.pop("train")
    train = list_images(first)
    others = {part: _others(root / name, first, train.classes) for part, name in names.items()}
    return {"train": train, **others}


def _others(part: Path, train: Path, classes: Collection[str]) -> Part:
    if not part.is_dir():
        raise BenchError(f"{part}: no such folder; it should hold a folder of images per class")
    found = Part({name: [] for name in classes}, [])
    for entry in sorted(os.scandir(part), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            found.passed_over.append(part / entry.name)
            continue
        images, others = files_in(part / entry.name)
        found.passed_over.extend(others)
        if entry.name in found.classes:
            found.classes[entry.name] = images
        elif images:
            raise BenchError(
                f"{train}: no class folder {entry.name!r}, which {part.name} has"
                f"{did_you_mean(entry.name, classes)}; add it or remove that one"
            )
    if not found.files:
        raise BenchError(f"{part}: no image in any class folder ({told_suffixes()}); nothing to test with")
    return found


def labels_of(classes: dict[str, list[Path]]) -> np.ndarray:
    """Number the classes in their order, one label (n,) int64 per image."""
    return np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])


def decode(
    classes: dict[str, list[Path]], size: int, framed: Frame | None = None, *, upright: bool = False
) -> np.ndarray:
    """Decode all images to (n, size, size, 3) uint8 RGB, those of another size as `framed` does or `fit`.

    `upright` turns them as their EXIF orientation says (see `bench.data.read.decoding`).
    """
    files = [path for images in classes.values() for path in images]
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    for i, path in enumerate(files):  # measured: threads make small images slower, not faster
        pixels[i] = _decode(path, size, framed or fit, upright)
    return pixels


def _decode(path: Path, size: int, framed: Frame, upright: bool) -> np.ndarray:
    try:
        image = decoding.decode(path, upright=upright)
    except Exception as error:  # what a decoder raises on a broken file depends on the format
        raise BenchError(
            f"{path}: not a readable image ({type(error).__name__}: {error}); replace or remove it"
        ) from error
    return np.asarray(framed(image, size))


def fit(image: Image.Image, size: int) -> Image.Image:
    """Cut an image to its centre square and resize it bilinearly with antialiasing.

    Pillow's antialiasing weighs every source pixel when it shrinks.
    """
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _refuse(error: OSError) -> NoReturn:
    raise error  # os.walk would pass over what it may not read
