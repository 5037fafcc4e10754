"""All that a run needs of its data: the whole training set, and which of it makes the long tail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.cell import DataSet
from bench.data import longtail, sources
from bench.data.extra import Extra, read_extra
from bench.randomness import generator


@dataclass(frozen=True, eq=False)
class Split:
    """A long-tailed training set and its test set.

    The images are those of the whole training set, which runs share however they cut it; a split is the
    index list `positions` into it. On the host they are mapped from the cache and hardly occupy memory of
    a process's own, so a split is cheap to load again in every process. With extra images they are a copy:
    the subset, then all extra ones, of which every epoch draws as many.

    Attributes:
        images: (N, 3, H, W) uint8, the whole training set in its source's order.
        positions: (n,) int64 into `images`: the long-tailed subset, class after class.
        labels: (n + k,) int64, of the subset and of the k extra images of an epoch.
        test_images: (M, 3, H, W) uint8; test_labels: (M,) int64.
        class_counts: (C,) int64, real training images of each class: what shot groups go by.
        fingerprint: of "train" (the subset), "test" and, where there are extra images, "extra_train"; see
            `longtail.fingerprint`.
        key: names `images` and `test_images`, so that one process uploads them to a device only once.
    """

    dataset: DataSet
    images: Tensor
    positions: np.ndarray
    labels: np.ndarray
    test_images: Tensor
    test_labels: np.ndarray
    class_counts: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: dict[str, str]
    key: str
    extra: Extra | None = None

    @property
    def epoch_counts(self) -> np.ndarray:
        """Images (C,) that an epoch has of each class, extra ones included: what methods go by."""
        return np.bincount(self.labels, minlength=len(self.class_counts))

    def epoch_positions(self, seed: int, epoch: int) -> np.ndarray:
        """Return where in `images` an epoch's images stand, (n + k,) int64, in the order of `labels`."""
        if self.extra is None:
            return self.positions
        drawn = self.extra.draw(generator("extra_train", seed, epoch))
        return np.concatenate([self.positions, len(self.positions) + drawn])


def load(dataset: DataSet, imbalance_factor: float, data_dir: Path) -> Split:
    """Read a data set and cut its long tail; the same arguments give the same split, in any process.

    Raises:
        BenchError: the data is missing or damaged, or cannot give such a tail.
    """
    source = sources.read(dataset, data_dir)
    classes = len(source.class_names)
    available = np.bincount(source.train_labels, minlength=classes)
    counts = longtail.class_counts(dataset, imbalance_factor, available, source.class_names)
    positions = longtail.select(source.train_labels, counts)
    labels = np.asarray(source.train_labels)[positions]
    test_labels = np.array(source.test_labels)
    split = Split(
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
        key=source.key,
    )
    extra = read_extra(dataset, counts, source.class_names, data_dir)
    return split if extra is None else _with_extra(split, extra)


def _with_extra(split: Split, extra: Extra) -> Split:
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
