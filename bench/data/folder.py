"""A folder tree of images: `<root>/{train,test}/<class>/<image>`, sorted by class, then by file name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.errors import BenchError

#: Makes a square of so many pixels of an image.
Frame = Callable[[Image.Image, int], Image.Image]
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def list_images(part: Path) -> dict[str, list[Path]]:
    """Return the images of each class folder in `part`, both sorted by name; hidden names are not read.

    Raises:
        BenchError: there is no such folder, fewer than two classes, or a class folder without an image.
    """
    if not part.is_dir():
        raise BenchError(f"{part}: no such folder; it should hold a folder of images per class")
    names = sorted(e.name for e in os.scandir(part) if e.is_dir() and not e.name.startswith("."))
    if len(names) < 2:
        raise BenchError(
            f"{part}: {len(names)} class folders ({', '.join(names) or 'none'}); two are needed at least"
        )
    classes = {}
    for name in names:
        classes[name] = files_in(part / name)
        if not classes[name]:
            raise BenchError(
                f"{part / name}: no image in this class folder ({', '.join(SUFFIXES)}); fill it or remove it"
            )
    return classes


def files_in(folder: Path) -> list[Path]:
    """Return the images of one folder, sorted by name; hidden ones are not read."""
    return [folder / name for name in sorted(e.name for e in os.scandir(folder)) if _is_image(name)]


def below(data_dir: Path, folder: str, of: str) -> Path:
    """Return the place of a folder of the data set `of`, which must lie below the data directory."""
    inside = os.path.normpath(folder)
    if os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir:
        raise BenchError(
            f"{of}: folder {folder!r} leaves the data directory; "
            "give a path below it (a symbolic link there may lead elsewhere)"
        )
    return data_dir / inside


def list_tree(root: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Return the training and the test images of a tree by class; both must have the same classes."""
    train, test = list_images(root / "train"), list_images(root / "test")
    for name in sorted(train.keys() ^ test.keys()):
        there, missing = ("train", "test") if name in train else ("test", "train")
        raise BenchError(
            f"{root / missing}: no class folder {name!r}, which {there} has; add it or remove that one"
        )
    return train, test


def labels_of(classes: dict[str, list[Path]]) -> np.ndarray:
    """Number the classes in their order, one label (n,) int64 per image."""
    return np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])


def decode(classes: dict[str, list[Path]], size: int, framed: Frame | None = None) -> np.ndarray:
    """Decode all images to (n, size, size, 3) uint8 RGB, those of another size as `framed` does or `fit`."""
    files = [path for images in classes.values() for path in images]
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    for i, path in enumerate(files):  # measured: threads make small images slower, not faster
        pixels[i] = _decode(path, size, framed or fit)
    return pixels


def _decode(path: Path, size: int, framed: Frame) -> np.ndarray:
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
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


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
