"""Generated images beside the real training images: which are used, and which of them in an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.cell import DataSet, ExtraTrain
from bench.data.read import folder, lists
from bench.data.read.cache import key_of, through_cache
from bench.data.read.decoding import RULES
from bench.data.split import longtail, manifest
from bench.data.split.manifest import Manifest
from bench.errors import BenchError, did_you_mean


@dataclass(frozen=True, eq=False)
class Extra:
    """Generated images of one data set, class after class.

    Attributes:
        classes: the files of each class, in order.
        size: width and height of `images`.
        counts: (C,) int64, images of each class.
        drawn: (C,) int64, images of each class in an epoch: `weight` times `counts`, rounded half to even.
        manifest: of the folder, if it has one.
        key: identifies the content.
        cache: folder of the decoded `images`.
        upright: whether they are turned as their EXIF orientation says.
        passed_over: files in the folders that are not images.
    """

    settings: ExtraTrain
    classes: dict[str, list[Path]]
    size: int
    counts: np.ndarray
    drawn: np.ndarray
    manifest: Manifest | None
    key: str
    cache: Path
    upright: bool
    passed_over: tuple[Path, ...]

    @cached_property
    def images(self) -> np.ndarray:
        """All images, (m, H, W, 3) uint8, read on first use."""
        return through_cache(
            self.cache,
            ("images",),
            lambda: {"images": folder.decode(self.classes, self.size, upright=self.upright)},
        )["images"]

    @property
    def files(self) -> list[Path]:
        """All files, class after class."""
        return [path for images in self.classes.values() for path in images]

    @property
    def labels(self) -> np.ndarray:
        """The labels (k,) int64 of an epoch's draw, equal in every epoch."""
        return np.repeat(np.arange(len(self.drawn)), self.drawn)

    @property
    def fingerprint(self) -> str:
        """A hash of all images, whether drawn or not."""
        labels = np.repeat(np.arange(len(self.counts)), self.counts)
        return longtail.fingerprint(np.arange(len(labels)), labels, self.images)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw an epoch's images without replacement; return their positions (k,) int64 in `images`."""
        first = np.cumsum(self.counts) - self.counts
        picks = [
            start + np.sort(rng.choice(count, size=drawn, replace=False))
            for start, count, drawn in zip(first, self.counts, self.drawn, strict=True)
        ]
        return np.concatenate(picks).astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """Return for the record which images were added, how they were made, and how many an epoch had."""
        return {
            "name": self.settings.name,
            "kind": self.settings.kind,
            "weight": self.settings.weight,
            "made": self.manifest.settings.model_dump() if self.manifest else None,
            "counts": self.counts.tolist(),
            "drawn": self.drawn.tolist(),
        }


def read_extra(
    dataset: DataSet, class_counts: np.ndarray, class_names: tuple[str, ...], data_dir: Path
) -> Extra | None:
    """Read the extra images of a data set with a long tail of `class_counts` (C,), None if it has none.

    Raises:
        BenchError: the folder is missing, has an unknown class, or gives no image.
    """
    extra = dataset.extra_train
    if extra is None:
        return None
    of = f"{dataset.name}: extra_train {extra.name!r}"
    root = folder.below(data_dir, extra.folder, of)
    if not root.is_dir():
        raise BenchError(
            f"{root}: no such folder, which {of} needs; fill it with `run_bench.py synthesize`, or put "
            "<class>/<image> there"
        )
    if extra.list_file is None:
        found, passed_over = _folders(root, class_names, of)
    else:
        found, passed_over = _listed(root, extra, class_names), []
    limits = room(class_counts, extra.fill_to, extra.max_per_class)
    classes = {name: found[name][:limit] for name, limit in zip(class_names, limits, strict=True)}
    counts = np.array([len(files) for files in classes.values()])
    drawn = np.rint(extra.weight * counts).astype(np.int64)
    if not drawn.any():
        raise BenchError(
            f"{of}: no epoch would use an image of {root}; fill the folder, or correct fill_to, "
            "max_per_class or weight"
        )
    files = [path for images in classes.values() for path in images]
    key = f"{dataset.name}-extra-{key_of(root, files, dataset.image_size, RULES, dataset.upright)}"
    return Extra(
        extra,
        classes,
        dataset.image_size,
        counts,
        drawn,
        manifest.read(root),
        key,
        data_dir / ".cache" / key,
        dataset.upright,
        tuple(passed_over),
    )


def _folders(root: Path, class_names: tuple[str, ...], of: str) -> tuple[dict[str, list[Path]], list[Path]]:
    known = {name.partition("/")[0] for name in class_names}  # a class may be deeper: Plantae/7477
    for name in sorted(path.name for path in root.iterdir() if path.is_dir()):
        if name not in known and not name.startswith("."):
            raise BenchError(f"{root / name}: {of} has no such class{did_you_mean(name, known)}")
    class_folders = {root / name for name in class_names}
    found: dict[str, list[Path]] = {name: [] for name in class_names}
    passed_over: list[Path] = []
    for name in class_names:
        if (root / name).is_dir():
            found[name], others = folder.files_in(root / name, but=class_folders)
            passed_over += others
    return found, passed_over


def _listed(root: Path, extra: ExtraTrain, class_names: tuple[str, ...]) -> dict[str, list[Path]]:
    listing = lists.read_list(folder.below(root, str(extra.list_file), extra.name))
    classes: dict[str, list[Path]] = {name: [] for name in class_names}
    for i, label in enumerate(listing.labels.tolist()):
        if label >= len(class_names):
            raise listing.fault(i, f"label {label}, but there are {len(class_names)} classes")
        classes[class_names[label]].append(root / listing.path(i))
    return classes


def room(class_counts: np.ndarray, fill_to: int | None, max_per_class: int | None) -> np.ndarray:
    """Return the largest number of extra images (C,) of each class beside `class_counts` (C,) real ones."""
    unbounded = np.full(len(class_counts), np.iinfo(np.int64).max)
    room = unbounded if fill_to is None else np.maximum(fill_to - class_counts, 0)
    return room if max_per_class is None else np.minimum(room, max_per_class)
