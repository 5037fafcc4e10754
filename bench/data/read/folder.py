"""A folder tree of images: `<root>/{train,test}/<class>/<image>`, sorted by class, then by file name.

Sub-folders of a class belong to it. `decoding.is_image` decides which files are images; hidden files, whose
names begin with a dot, are ignored, and all other files are reported as not read.
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
from bench.errors import BenchError, did_you_mean, first_of

#: Makes a square image of that many pixels a side.
Frame = Callable[[Image.Image, int], Image.Image]

#: Names of a test set to look for, in this order, if the recipe gives none.
TESTS = ("test", "validation", "val")


@dataclass(frozen=True)
class TreePart:
    """The images of a part by class, in order, and its files that are not images of a class."""

    classes: dict[str, list[Path]]
    passed_over: list[Path]

    @property
    def files(self) -> list[Path]:
        """All images, class after class."""
        return [path for images in self.classes.values() for path in images]


def list_images(part: Path) -> TreePart:
    """Return the images of each class folder in `part`, both sorted by name.

    Raises:
        BenchError: the folder does not exist or has fewer than two classes; a class folder has no image or a
            name that is not text; Pillow does not read an image.
    """
    names, loose = _scan(part)
    if len(names) < 2:
        raise BenchError(
            f"{part}: {len(names)} class folders ({', '.join(names) or 'none'}); at least two are needed"
        )
    found = TreePart({}, loose)
    for name in names:
        if not _is_text(name):
            raise BenchError(f"{part / name}: the name of this class is not UTF-8 text; rename the folder")
        found.classes[name], others = files_in(part / name)
        found.passed_over.extend(others)
        if not found.classes[name]:
            raise BenchError(
                f"{part / name}: no image in this class folder ({usual_suffixes()}); fill it or remove it"
            )
    return found


def _scan(part: Path) -> tuple[list[str], list[Path]]:
    """Return the names of the folders in a part, and its files, both sorted and without hidden ones."""
    if not part.is_dir():
        raise BenchError(f"{part}: no such folder; it should hold a folder of images per class")
    items = sorted((item for item in os.scandir(part) if item.name[0] != "."), key=lambda item: item.name)
    folders = [item.name for item in items if item.is_dir()]
    return folders, [part / item.name for item in items if not item.is_dir()]


def files_in(folder: Path, but: Collection[Path] = ()) -> tuple[list[Path], list[Path]]:
    """Return the images in and below a folder, and the other files, both sorted by path.

    Args:
        but: folders below it to leave out.
    """
    images: list[tuple[str, Path]] = []
    others: list[tuple[str, Path]] = []
    seen: set[str] = set()
    for path, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        home, real, within = Path(path), os.path.realpath(path), path[len(str(folder)) :]
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and home / name not in but]
        for name in names:
            if not name.startswith("."):
                kind = images if decoding.is_image(home / name) else others
                kind.append((os.path.join(within, name), home / name))
    return [path for _, path in sorted(images)], [path for _, path in sorted(others)]


def usual_suffixes() -> str:
    """Return the usual suffixes of images, for a message."""
    usual = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".gif", ".avif")
    return ", ".join(end for end in usual if end in decoding.suffixes()) + " and what else Pillow reads"


def passed_over(files: Collection[Path]) -> list[str]:
    """Return a remark about files that are not read, as they are no images of a class; none without files."""
    if not files:
        return []
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in files)
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(5))
    names = first_of([*files])
    return [f"{len(files):,} files are no images of a class and are not read ({counts}): {names}"]


def below(data_dir: Path, folder: str, of: str) -> Path:
    """Return the path of a folder of the data set `of`, which must be below the data directory."""
    inside = os.path.normpath(folder)
    if os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir:
        raise BenchError(
            f"{of}: folder {folder!r} leaves the data directory; "
            "give a path below it (a symbolic link there may lead elsewhere)"
        )
    return data_dir / inside


def part_names(parts: Parts | None, is_there: Callable[[str], bool]) -> dict[str, str]:
    """Return a data set's names for "train", "test" and, if the recipe has one, "val"."""
    asked = parts or Parts()
    test = asked.test or next(filter(is_there, TESTS), TESTS[0])
    return {"train": asked.train, "test": test} | ({"val": asked.val} if asked.val else {})


def root_of(dataset: DataSet, data_dir: Path) -> Path:
    """Return the folder of a data set that is a tree.

    Raises:
        BenchError: it does not exist.
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


def list_tree(root: Path, parts: Parts | None = None) -> dict[str, TreePart]:
    """Return the parts of a tree by the names of `part_names`, all with the same classes.

    A class may have no test images, with or without a folder there; its test metrics are then n/a.
    """
    names = part_names(parts, lambda name: (root / name).is_dir())
    first = root / names.pop("train")
    train = list_images(first)
    others = {part: _others(root / name, first, train.classes) for part, name in names.items()}
    return {"train": train, **others}


def _others(part: Path, train: Path, classes: Collection[str]) -> TreePart:
    names, loose = _scan(part)
    found = TreePart({name: [] for name in classes}, loose)
    for name in names:
        images, others = files_in(part / name)
        found.passed_over.extend(others)
        if name in found.classes:
            found.classes[name] = images
        elif images:
            raise BenchError(
                f"{train}: no class folder {name!r}, which {part.name} has"
                f"{did_you_mean(name, classes)}; add it or remove that one"
            )
    if not found.files:
        raise BenchError(f"{part}: no image in any class folder ({usual_suffixes()}); nothing to test with")
    return found


def labels_of(classes: dict[str, list[Path]]) -> np.ndarray:
    """Return the labels (n,) int64 of the images: the indices of their classes."""
    return np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])


def decode(
    classes: dict[str, list[Path]], size: int, framed: Frame | None = None, *, upright: bool = False
) -> np.ndarray:
    """Decode all images to (n, size, size, 3) uint8 RGB, resized by `framed` (default: `fit`).

    `upright` turns them as their EXIF orientation says (see `bench.data.read.decoding`).
    """
    files = [path for images in classes.values() for path in images]
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    for i, path in enumerate(files):  # measured: threads are slower for small images
        try:
            image = decoding.decode(path, upright=upright)
        except Exception as error:  # the exception depends on the format
            raise BenchError(
                f"{path}: not a readable image ({type(error).__name__}: {error}); replace or remove it"
            ) from error
        pixels[i] = np.asarray((framed or fit)(image, size))
    return pixels


def fit(image: Image.Image, size: int) -> Image.Image:
    """Cut an image to its centre square and resize it bilinearly; shrinking is antialiased."""
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _refuse(error: OSError) -> NoReturn:
    raise error  # os.walk would skip unreadable folders
