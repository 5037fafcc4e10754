"""The data of a run: the images, and the positions and labels of its long tail."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.cell import DataSet
from bench.data.read import sources
from bench.data.read.listing import listed
from bench.data.read.pictures import Pictures, pictures
from bench.data.sets import subsets
from bench.data.split import longtail
from bench.data.split.extra import Extra, read_extra
from bench.errors import BenchError
from bench.randomness import generator


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """A long-tailed training set and its test set, without their pixels.

    Attributes:
        positions: (n,) int64 into the training images: the long-tailed subset, class after class.
        labels: (n + k,) int64, of the subset, with label noise, and of the k extra images of an epoch.
        test_labels: (M,) int64.
        class_counts: (C,) int64, real training images of each class, which define the shot groups.
        fingerprint: of "train" (the subset), "test" and, with extra images, "extra_train"; see
            `longtail.fingerprint` and `Pictures.fingerprint`.
        image_hashes: to recognise published images (see `bench.data.sets.subsets`); only of images in memory,
            without held-out ones.
    """

    dataset: DataSet
    positions: np.ndarray
    labels: np.ndarray
    test_labels: np.ndarray
    class_counts: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: dict[str, str]
    image_hashes: dict[str, str] = field(default_factory=dict)
    extra: Extra | None = None

    @property
    def epoch_counts(self) -> np.ndarray:
        """Images (C,) of each class in an epoch, extra ones included: the counts that methods use."""
        return np.bincount(self.labels, minlength=len(self.class_counts))

    def epoch_positions(self, seed: int, epoch: int) -> np.ndarray:
        """Return the positions (n + k,) int64 of an epoch's training images, in the order of `labels`."""
        if self.extra is None:
            return self.positions
        drawn = self.extra.draw(generator("extra_train", seed, epoch))
        return np.concatenate([self.positions, len(self.positions) + drawn])


@dataclass(frozen=True, eq=False, kw_only=True)
class InMemory(Split):
    """A split whose images fit in memory.

    `images` is the whole training set, which runs share whatever their subset. It is memory-mapped from the
    cache, so every process can load it at almost no cost. With extra images it is a copy: the subset, then
    all extra images.

    Attributes:
        images: (N, 3, H, W) uint8, the whole training set in its source's order.
        test_images: (M, 3, H, W) uint8.
        key: identifies `images` and `test_images`, so that a process uploads them to a device only once.
    """

    images: Tensor
    test_images: Tensor
    key: str


@dataclass(frozen=True, eq=False, kw_only=True)
class OnDisk(Split):
    """A split whose images are read when they are needed.

    Attributes:
        pictures: the subset of the training images: `positions` are 0 to n-1.
        extra_pictures: all extra images; their positions follow those of `pictures`.
        val_pictures, val_labels: of the validation set, if the data set has one; labels (V,) int64.
    """

    pictures: Pictures
    test_pictures: Pictures
    extra_pictures: Pictures | None = None
    val_pictures: Pictures | None = None
    val_labels: np.ndarray | None = None


def load(dataset: DataSet, imbalance_factor: float, data_dir: Path, subsample: int | None = None) -> Split:
    """Read a data set and draw its long tail; the same arguments give the same split in any process.

    Args:
        subsample: as in the protocol.

    Raises:
        BenchError: the data is missing or damaged, or cannot give such a tail or subsample.
    """
    read = _on_disk if dataset.on_disk else _in_memory
    split = read(dataset, imbalance_factor, data_dir)
    return split if subsample is None else _subsampled(split, subsample)


def _subsampled(split: Split, ratio: int) -> Split:
    """Keep at most `ratio` times the images of the smallest class in each class, always the same ones.

    Raises:
        BenchError: there are extra images, which would have to be left out too.
    """
    if split.extra is not None:
        raise BenchError("protocol.subsample is for real images only; leave extra_train out")
    counts = np.bincount(split.labels, minlength=len(split.class_counts))
    most = int(counts[counts > 0].min()) * ratio
    order = generator("subsample", ratio).permutation(len(split.labels))
    by_class = order[np.argsort(split.labels[order], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # within the class
    kept = np.sort(by_class[rank < most])
    mark = hashlib.sha256(kept.tobytes()).hexdigest()[:8]
    prints = {**split.fingerprint, "train": f"{split.fingerprint['train']}-{mark}"}
    return replace(split, positions=split.positions[kept], labels=split.labels[kept], fingerprint=prints)


def _in_memory(dataset: DataSet, imbalance_factor: float, data_dir: Path) -> InMemory:
    source = sources.read(dataset, data_dir)
    if dataset.held_out is not None:
        source = _holding_out(source, dataset)
    counts, positions, labels = _tail(dataset, imbalance_factor, source.train_labels, source.class_names)
    test_labels = np.array(source.test_labels)
    split = InMemory(
        dataset=dataset,
        images=torch.from_numpy(source.train_images).permute(0, 3, 1, 2),
        positions=positions,
        labels=labels,
        test_images=torch.from_numpy(source.test_images).permute(0, 3, 1, 2),
        test_labels=test_labels,
        class_counts=counts,
        class_names=source.class_names,
        fingerprint={
            "train": longtail.fingerprint(positions, labels, source.train_images[positions]),
            "test": longtail.fingerprint(np.arange(len(test_labels)), test_labels, source.test_images),
        },
        image_hashes={} if dataset.held_out else subsets.hashes_of(source, positions, data_dir),
        key=source.key,
    )
    extra = read_extra(dataset, counts, source.class_names, data_dir)
    return split if extra is None else _with_extra(split, extra)


def _holding_out(source: sources.Images, dataset: DataSet) -> sources.Images:
    """Replace the test set by held-out training images, without which the tail is drawn."""
    held = longtail.hold_out(dataset, source.train_labels, len(source.class_names))
    drawn = f"-split-{dataset.split_seed}" if dataset.split_seed else ""
    return replace(
        source,
        test_images=source.train_images[held],
        test_labels=source.train_labels[held],
        key=f"{source.key}-held-out-{dataset.held_out}{drawn}",
    )


def _with_extra(split: InMemory, extra: Extra) -> InMemory:
    subset = split.images.permute(0, 2, 3, 1)[split.positions]
    return replace(
        split,
        images=torch.cat([subset, torch.from_numpy(extra.images)]).permute(0, 3, 1, 2),
        positions=np.arange(len(split.positions)),
        labels=np.concatenate([split.labels, extra.labels]),
        fingerprint={**split.fingerprint, "extra_train": extra.fingerprint},
        key=f"{split.key}-{split.fingerprint['train']}-{extra.key}",
        extra=extra,
    )


def _on_disk(dataset: DataSet, imbalance_factor: float, data_dir: Path) -> OnDisk:
    lists = listed(dataset, data_dir)
    on_disk = {part: pictures(dataset, data_dir, lists.root, one) for part, one in lists.parts.items()}
    counts, positions, labels = _tail(dataset, imbalance_factor, lists.train.labels, lists.class_names)
    train, test, test_labels = on_disk["train"].take(positions), on_disk["test"], lists.test.labels
    if dataset.held_out is not None:
        held = longtail.hold_out(dataset, lists.train.labels, len(lists.class_names))
        test, test_labels = on_disk["train"].take(held), lists.train.labels[held]
    fingerprint = {"train": train.fingerprint(labels), "test": test.fingerprint(test_labels)}
    extra = read_extra(dataset, counts, lists.class_names, data_dir)
    extra_pictures = None
    if extra is not None:
        paths = np.array([os.fsencode(path.absolute()) for path in extra.files])
        extra_pictures = Pictures(Path("/"), paths, np.arange(len(paths)), upright=dataset.upright)
        every = np.repeat(np.arange(len(extra.counts)), extra.counts)
        fingerprint["extra_train"] = extra_pictures.fingerprint(every)
        labels = np.concatenate([labels, extra.labels])
    return OnDisk(
        dataset=dataset,
        positions=np.arange(len(positions)),
        labels=labels,
        test_labels=test_labels,
        class_counts=counts,
        class_names=lists.class_names,
        fingerprint=fingerprint,
        extra=extra,
        pictures=train,
        test_pictures=test,
        extra_pictures=extra_pictures,
        val_pictures=on_disk.get("val"),
        val_labels=None if lists.val is None else lists.val.labels,
    )


def _tail(
    dataset: DataSet, imbalance_factor: float, labels: np.ndarray, class_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the class counts (C,) of the long tail, and positions (n,) and labels (n,) of its images."""
    available = np.bincount(labels, minlength=len(class_names))
    counts = longtail.class_counts(dataset, imbalance_factor, available, class_names)
    positions = longtail.select(labels, counts, dataset.split_seed)
    chosen = np.asarray(labels)[positions]
    if dataset.label_noise:
        chosen = longtail.with_noise(chosen, dataset.label_noise, len(counts), dataset.split_seed)
    return counts, positions, chosen
