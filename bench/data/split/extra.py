"""Generated images beside the real training images: which are taken, and which of them an epoch sees."""

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
from bench.errors import BenchError, did_you_mean


@dataclass(frozen=True, eq=False)
class Extra:
    """Generated images of one data set, class after class.

    Attributes:
        classes: the files of each class, in its order.
        size: width and height of `images`.
        counts: (C,) int64, how many there are of each class.
        drawn: (C,) int64, how many of them every epoch draws: `weight` of them, rounded (halves to even).
        made: what made them, where the folder says so.
        key: names this content.
        cache: where `images` are kept.
        upright: whether they are turned as their EXIF orientation says.
        passed_over: files in its folders that are no images.
    """

    settings: ExtraTrain
    classes: dict[str, list[Path]]
    size: int
    counts: np.ndarray
    drawn: np.ndarray
    made: manifest.Manifest | None
    key: str
    cache: Path
    upright: bool
    passed_over: tuple[Path, ...]

    @cached_property
    def images(self) -> np.ndarray:
        """All of them in memory, (m, H, W, 3) uint8; read when asked for."""
        return through_cache(
            self.cache,
            ("images",),
            lambda: {"images": folder.decode(self.classes, self.size, upright=self.upright)},
        )["images"]

    @property
    def files(self) -> list[Path]:
        """All of them on disk, class after class."""
        return [path for images in self.classes.values() for path in images]

    @property
    def labels(self) -> np.ndarray:
        """The classes (k,) int64 of an epoch's draw; they are the same in every epoch."""
        return np.repeat(np.arange(len(self.drawn)), self.drawn)

    @property
    def fingerprint(self) -> str:
        """A hash of all images, those an epoch leaves out too."""
        labels = np.repeat(np.arange(len(self.counts)), self.counts)
        return longtail.fingerprint(np.arange(len(labels)), labels, self.images)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw an epoch's images without replacement: where they stand in `images`, (k,) int64."""
        first = np.cumsum(self.counts) - self.counts
        picks = [
            start + np.sort(rng.choice(there, size=taken, replace=False))
            for start, there, taken in zip(first, self.counts, self.drawn, strict=True)
        ]
        return np.concatenate(picks).astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """Say in a record what was added, by what it was made, and how much of it an epoch saw."""
        made = self.made.settings.model_dump() if self.made else None
        return {
            "name": self.settings.name,
            "kind": self.settings.kind,
            "weight": self.settings.weight,
            "made": made,
            "counts": self.counts.tolist(),
            "drawn": self.drawn.tolist(),
        }


def read_extra(
    dataset: DataSet, class_counts: np.ndarray, class_names: tuple[str, ...], data_dir: Path
) -> Extra | None:
    """Read what a data set adds to its long tail of `class_counts` (C,), None where it adds nothing.

    Raises:
        BenchError: the folder is missing, has a class that the data set has not, or gives no image.
    """
    extra = dataset.extra_train
    if extra is None:
        return None
    of = f"{dataset.name}: extra_train {extra.name!r}"
    root = folder.below(data_dir, extra.folder, of)
    if not root.is_dir():
        raise BenchError(
            f"{root}: no such folder, which {of} wants; fill it with `run_bench.py synthesize`, or put "
            "<class>/<image> there"
        )
    if extra.list_file is None:
        there, passed_over = _folders(root, class_names, of)
    else:
        there, passed_over = _listed(root, extra, class_names), []
    limits = room(class_counts, extra.fill_to, extra.max_per_class)
    classes = {name: there[name][:limit] for name, limit in zip(class_names, limits, strict=True)}
    counts = np.array([len(files) for files in classes.values()])
    drawn = np.rint(extra.weight * counts).astype(np.int64)
    if not drawn.any():
        raise BenchError(
            f"{of}: an epoch would see none of the images in {root}; fill the folder, or mend fill_to, "
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
    known = {name.partition("/")[0] for name in class_names}  # a class may lie deeper: Plantae/7477
    for name in sorted(path.name for path in root.iterdir() if path.is_dir()):
        if name not in known and not name.startswith("."):
            raise BenchError(f"{root / name}: {of} has no such class{did_you_mean(name, known)}")
    homes = {root / name for name in class_names}
    there: dict[str, list[Path]] = {name: [] for name in class_names}
    passed_over: list[Path] = []
    for name in class_names:
        if (root / name).is_dir():
            there[name], others = folder.files_in(root / name, but=homes)
            passed_over += others
    return there, passed_over


def _listed(root: Path, extra: ExtraTrain, class_names: tuple[str, ...]) -> dict[str, list[Path]]:
    listing = lists.read_list(folder.below(root, str(extra.list_file), extra.name))
    classes: dict[str, list[Path]] = {name: [] for name in class_names}
    for place, label in enumerate(listing.labels.tolist()):
        if label >= len(class_names):
            raise listing.fault(place, f"label {label}, but there are {len(class_names)} classes")
        classes[class_names[label]].append(root / listing.path(place))
    return classes


def room(class_counts: np.ndarray, fill_to: int | None, max_per_class: int | None) -> np.ndarray:
    """Return how many images (C,) may at most join the `class_counts` (C,) real ones of each class."""
    unbounded = np.full(len(class_counts), np.iinfo(np.int64).max)
    room = unbounded if fill_to is None else np.maximum(fill_to - class_counts, 0)
    return room if max_per_class is None else np.minimum(room, max_per_class)
