"""What the loaders of images in memory and on disk share: sizes, policies and all random numbers.

Nothing random happens on the device: an epoch's order and augmentation tables are drawn on the host as a pure
function of (seed, epoch, stream).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bench.captured import Play, at_once
from bench.cell import Cell, Protocol
from bench.data.augment import Policy
from bench.data.augment.distortion import Distortion, distorted
from bench.data.feed import samplers
from bench.data.split.load import Split
from bench.errors import BenchError
from bench.method import Batch, View
from bench.randomness import generator


def policies_of(views: Sequence[View], protocol: Protocol) -> tuple[str, ...]:
    """Name the augmentation policy of each view.

    Raises:
        BenchError: the protocol names more or fewer than the method has views.
    """
    names = protocol.views or tuple(view.policy for view in views)
    if len(names) != len(views):
        own = ", ".join(view.policy for view in views)
        raise BenchError(f"protocol.views names {len(names)} policies for {len(views)} views: {own}")
    return tuple(protocol.augmentation if name == "main" else name for name in names)


class Loader(ABC):
    """Training, validation and test batches of one run.

    Attributes:
        size: images of an epoch: those of the subset and the extra images.
        steps: batches of an epoch; the last may be smaller, or left out with the protocol's `drop_last`.
        test_batch_size: images in a batch of a test.
        val_labels: of the validation set, (V,) int64; empty if the data set has none.
        play: makes batches and test images, perhaps by replaying a CUDA graph.
        strengths: levels (C,) of the classes, by the names in the views' `strength_of`.
    """

    play: Play = staticmethod(at_once)
    test_batch_size: int

    def __init__(
        self,
        split: Split,
        views: tuple[View, ...],
        cell: Cell,
        device: str | torch.device,
        *,
        extra_sampler: str | None = None,
    ) -> None:
        protocol = cell.protocol
        self.split: Split = split
        self.views, self.seed = views, cell.seed
        self.extra_sampler = extra_sampler
        self.device = torch.device(device)
        self.batch_size = protocol.batch_size
        fast = cell.mode == "fast"
        self.memory_format = torch.channels_last if fast else torch.contiguous_format
        for i, view in enumerate(views):
            if view.patch_of is not None and not (view.patch_of < i and view.boxes and view.size):
                raise BenchError(f"view {i}: a patch needs `patch_of` an earlier view, `boxes` and `size`")
        self.policies = [self._policy(name) for name in policies_of(views, protocol)]
        self.policies = [
            distorted(rule) if view.strength_of else rule
            for view, rule in zip(views, self.policies, strict=True)
        ]
        self.strengths: dict[str, np.ndarray] = {}

        self.val_labels = np.empty(0, np.int64)
        self.size = len(split.labels)
        whole, ragged = divmod(self.size, self.batch_size)
        self.steps = whole + bool(ragged and not protocol.drop_last)
        if not self.steps:
            raise BenchError(
                f"protocol.drop_last leaves no batch: {self.size} training images are fewer than "
                f"batch_size {self.batch_size}; lower it"
            )
        mean, std = (torch.tensor(x, device=self.device) for x in (split.dataset.mean, split.dataset.std))
        self._mean, self._std = mean.view(3, 1, 1), std.view(3, 1, 1)

    @abstractmethod
    def epoch(
        self, epoch: int, epochs: int, sampler: str, draws: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0 of `epochs`.

        Args:
            sampler: a name of `bench.data.feed.samplers`.
            draws: the method's random numbers, `size` rows each; an extra batch shares them.
        """

    @abstractmethod
    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test set in its order, unaugmented: images (B, 3, H, W) and labels (B,)."""

    def test_view(self, name: str, view: int) -> Iterator[Tensor]:
        """Yield the test images in their order, augmented by the policy of that name; only from memory.

        Args:
            view: number of the view; each has other random numbers.
        """
        raise NotImplementedError

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the validation set as `test` does; nothing if the data set has none."""
        yield from ()

    @abstractmethod
    def train_eval(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the real training images as `test` does, in the order of the subset."""

    @abstractmethod
    def images_at(self, positions: Tensor) -> Tensor:
        """Return training images by their positions (B,) in the subset, normalised, unaugmented."""

    def probe(self, classes: np.ndarray, strengths: np.ndarray, epoch: int) -> Iterator[Tensor]:
        """Yield training images of the classes (n,), augmented as the first view at the strengths (n,).

        Images are drawn from their class with replacement, independently of the epoch's batches.
        """
        rng, side = generator("probe", self.seed, epoch), self.split.dataset.image_size
        by_class = np.argsort(self.split.labels, kind="stable")
        counts = np.bincount(self.split.labels, minlength=int(classes.max()) + 1)
        first = np.cumsum(counts) - counts
        positions = by_class[first[classes] + rng.integers(counts[classes])]
        tables = self.policies[0].draw(rng, len(positions), side) | _distortion(rng, strengths, side)
        for start in range(0, len(positions), self.test_batch_size):
            rows = slice(start, start + self.test_batch_size)
            yield self._probed(positions[rows], {name: table[rows] for name, table in tables.items()})

    @abstractmethod
    def _policy(self, name: str) -> Policy:
        """Return the policy of a name."""

    @abstractmethod
    def _probed(self, positions: np.ndarray, tables: dict[str, np.ndarray]) -> Tensor:
        """Return the first view of training images (n,) by rows of its tables."""

    def _drawn(
        self, sampler: str, stream: tuple[str, ...], epoch: int, epochs: int
    ) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """Draw an epoch's positions (n,), and each view's augmentation tables, n rows."""
        rng = generator(*stream, "order", self.seed, epoch)
        positions = samplers.order(sampler, self.split.labels, rng, epoch, epochs)
        tables = []
        for i, (view, rule) in enumerate(zip(self.views, self.policies, strict=True)):
            rng = generator(*stream, "view", i, self.seed, epoch)
            side = view.side(self.split.dataset.image_size)
            drawn = rule.at(epoch, epochs).draw(rng, self.size, side)
            if view.strength_of:
                chosen = rng.random(self.size) < view.chance
                none = np.zeros(len(self.split.class_counts), np.int64)
                levels = self.strengths.get(view.strength_of, none)[self.split.labels[positions]]
                drawn |= _distortion(rng, levels * chosen, side)
            tables.append(drawn)
        return positions, tables

    def _normalise(self, images: Tensor) -> Tensor:
        pixels = images.contiguous(memory_format=self.memory_format).float()
        return pixels.div_(255).sub_(self._mean).div_(self._std)

    def _upload(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _distortion(rng: np.random.Generator, levels: np.ndarray, side: int) -> dict[str, np.ndarray]:
    drawn = Distortion().draw_at(rng, levels, side)
    return {f"distortion.{name}": rows for name, rows in drawn.items()}
