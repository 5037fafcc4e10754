"""Batches: gathered, augmented and normalised on the run's device from images that stay there.

Nothing is done image by image in Python, and nothing random happens on the device: an epoch's order and
augmentation tables are drawn on the host as a pure function of (seed, epoch, stream) and uploaded once.
They are written to where the epoch before had them, so that a step captured in a CUDA graph finds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from bench.captured import Play, at_once, play_for
from bench.cell import Cell
from bench.data.augment import Policy, crop_boxes, policy
from bench.data.augment.distortion import Distortion, distorted
from bench.data.feed import samplers
from bench.data.split.load import InMemory, Split
from bench.errors import BenchError
from bench.method import Batch, View
from bench.randomness import generator

#: Batches are made at once, up to so many images, where making them is replayed: each operation of an
#: augmentation is a kernel that leaves most of a GPU idle on a single batch. The bytes are the same.
IMAGES_AT_ONCE = 1024

#: Images on a device, shared by the loaders that live at the same time.
_resident: WeakValueDictionary[tuple[str, str, torch.device], Tensor] = WeakValueDictionary()


@dataclass(frozen=True)
class _Plan:
    """An epoch's positions (n,) and each view's augmentation tables, n rows, on the device."""

    positions: Tensor
    tables: list[dict[str, Tensor]]

    def rows(self, rows: Tensor) -> _Plan:
        return _Plan(self.positions.index_select(0, rows), [_rows(table, rows) for table in self.tables])


class Loader:
    """Training batches and test batches of one run.

    Attributes:
        size: images an epoch draws, which is how many the subset has, and the extra images of an epoch.
        steps: batches of an epoch; the last is smaller where sizes do not divide, or left out with the
            protocol's `drop_last`.
        val_labels: of the validation set, (V,) int64; empty where the data set has none.
        play: how batches and images to score are made; batches some at once where it is replayed, so they
            outlast the steps in between. A batch lies in the tensors of the one before of its size.
        strengths: levels (C,) of the classes, by the names that views have in `strength_of`.
    """

    play: Play = staticmethod(at_once)

    def __init__(
        self,
        split: InMemory,
        views: tuple[View, ...],
        cell: Cell,
        device: str | torch.device,
        *,
        extra_sampler: str | None = None,
    ) -> None:
        self._settle(split, views, cell, device, extra_sampler)
        self.play = play_for(cell.mode, self.device)
        # measured: a CPU scores best near 100 images at once; a GPU wants more
        self.test_batch_size = 100 if self.device.type == "cpu" else 1000
        self._kept: dict[str, Tensor] = {}
        self._current: dict[int, Batch] = {}
        batches = 1 if self.play is at_once else max(1, IMAGES_AT_ONCE // self.batch_size)
        self._rows = torch.empty(batches * self.batch_size, dtype=torch.int64, device=self.device)
        self._test_rows = torch.empty(self.test_batch_size, dtype=torch.int64, device=self.device)
        self._images = _on_device(split.key, "train", split.images, self.device)
        self._test_images = _on_device(split.key, "test", split.test_images, self.device)
        self._subset = self._keep("subset", split.epoch_positions(self.seed, 0))
        self._labels = self._keep("labels", split.labels)
        self._test_labels = self._keep("test labels", split.test_labels)

    def _settle(
        self,
        split: Split,
        views: tuple[View, ...],
        cell: Cell,
        device: str | torch.device,
        extra_sampler: str | None,
    ) -> None:
        """Take over what does not depend on where the images are."""
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
        names = protocol.views or tuple(view.policy for view in views)
        if len(names) != len(views):
            own = ", ".join(view.policy for view in views)
            raise BenchError(f"protocol.views names {len(names)} policies for {len(views)} views: {own}")
        self.policies = [self._policy(protocol.augmentation if name == "main" else name) for name in names]
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

    def epoch(
        self, epoch: int, epochs: int, sampler: str, draws: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0 of `epochs`.

        Args:
            sampler: who comes in which order (see `bench.data.feed.samplers`).
            draws: the method's own random numbers, `size` rows each; an extra batch shares them.
        """
        if self.split.extra is not None:
            self._keep("subset", self.split.epoch_positions(self.seed, epoch))
        drawn = {name: self._keep(f"draws {name}", array) for name, array in (draws or {}).items()}
        main = self._plan(sampler, (), epoch, epochs)
        extra = self._plan(self.extra_sampler, ("extra",), epoch, epochs) if self.extra_sampler else None

        def batch(size: int) -> Batch:
            rows = self._rows[:size]
            some = _rows(drawn, rows)
            second = self._batch(extra.rows(rows), some) if extra else None
            made = self._batch(main.rows(rows), some, second)
            self._rows.add_(len(self._rows))
            return made

        several = len(self._rows)
        torch.arange(several, out=self._rows)
        wanted = min(self.size, self.steps * self.batch_size)
        for start in range(0, wanted, several):
            size = min(several, wanted - start)
            made = self.play(("batch", size), partial(batch, size), lambda: [self._rows], lasting=True)
            yield from self._one_by_one(made) if several > self.batch_size else (made,)

    def _one_by_one(self, made: Batch) -> Iterator[Batch]:
        """Yield the batches of a piece, each in the tensors of the one before of its size."""
        for start in range(0, len(made.labels), self.batch_size):
            batch = made.map(itemgetter(slice(start, start + self.batch_size)))
            size = len(batch.labels)
            if size not in self._current:
                self._current[size] = batch.map(torch.clone)
            else:
                for there, new in zip(self._current[size].tensors(), batch.tensors(), strict=True):
                    there.copy_(new)
            yield self._current[size]

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test set in its order, unaugmented: images (B, 3, H, W) and labels (B,)."""

        def images(size: int) -> Tensor:
            made = self._normalise(self._test_images.index_select(0, self._test_rows[:size]))
            self._test_rows.add_(self.test_batch_size)
            return made

        torch.arange(self.test_batch_size, out=self._test_rows)
        for labels in self._test_labels.split(self.test_batch_size):
            size = len(labels)
            yield self.play(("test", size), partial(images, size), lambda: [self._test_rows]), labels

    def test_view(self, name: str, view: int) -> Iterator[Tensor]:
        """Yield the test images in their order, made as the policy of that name makes training images.

        Args:
            view: numbers the draws, which differ.
        """
        rule, size = self._policy(name), self.split.dataset.image_size
        tables = rule.draw(generator("test view", view, self.seed), len(self.split.test_labels), size)
        for start in range(0, len(self.split.test_labels), self.test_batch_size):
            rows = slice(start, start + self.test_batch_size)
            there = {key: self._upload(table[rows]) for key, table in tables.items()}
            yield self._normalise(rule.apply(self._test_images[rows], there))

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the validation set likewise; nothing where the data set has none."""
        yield from ()

    def train_eval(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the real training images as they would be tested: in their order, unaugmented."""
        real = torch.arange(len(self.split.positions), device=self.device)
        for positions in real.split(self.test_batch_size):
            yield self.images_at(positions), self._labels[positions]

    def images_at(self, positions: Tensor) -> Tensor:
        """Return training images by their positions (B,) in the subset, normalised, unaugmented."""
        return self._normalise(self._gather(positions))

    def _policy(self, name: str) -> Policy:
        return policy(name)

    def _plan(self, sampler: str, stream: tuple[str, ...], epoch: int, epochs: int) -> _Plan:
        positions, tables = self._drawn(sampler, stream, epoch, epochs)
        here = " ".join(stream)
        uploaded = [
            {name: self._keep(f"{here} view {i} {name}", array) for name, array in table.items()}
            for i, table in enumerate(tables)
        ]
        return _Plan(self._keep(f"{here} order", positions), uploaded)

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

    def probe(self, classes: np.ndarray, strengths: np.ndarray, epoch: int) -> Iterator[Tensor]:
        """Yield training images of these classes (n,), made as the first view is at these strengths (n,).

        They are drawn from their class with replacement, apart from the epoch's own draws.
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

    def _probed(self, positions: np.ndarray, tables: dict[str, np.ndarray]) -> Tensor:
        there = {name: self._upload(table) for name, table in tables.items()}
        return self._normalise(self.policies[0].apply(self._gather(self._upload(positions)), there))

    def _batch(self, plan: _Plan, draws: dict[str, Tensor], extra: Batch | None = None) -> Batch:
        images = self._gather(plan.positions)
        shaped: list[Tensor] = []  # after geometry, before colour: what patches are cut from
        views: list[Tensor] = []
        for view, rule, table in zip(self.views, self.policies, plan.tables, strict=True):
            source = images
            if view.patch_of is not None:
                side = view.side(self.split.dataset.image_size)
                source = crop_boxes(shaped[view.patch_of], draws[view.boxes], side)
            shaped.append(rule.geometry(source, table))
            views.append(self._normalise(rule.colour(shaped[-1], table)))
        labels = self._labels[plan.positions]
        return Batch(tuple(views), labels, plan.positions, draws, extra)

    def _gather(self, positions: Tensor) -> Tensor:
        return self._images.index_select(0, self._subset[positions])

    def _normalise(self, images: Tensor) -> Tensor:
        pixels = images.contiguous(memory_format=self.memory_format).float()
        return pixels.div_(255).sub_(self._mean).div_(self._std)

    def _upload(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _keep(self, name: str, array: np.ndarray) -> Tensor:
        """Upload an array to where the one of that name was before: a captured step reads it there."""
        if name not in self._kept:
            self._kept[name] = self._upload(array).clone()
        return self._kept[name].copy_(torch.from_numpy(np.ascontiguousarray(array)), non_blocking=True)


def _distortion(rng: np.random.Generator, levels: np.ndarray, side: int) -> dict[str, np.ndarray]:
    drawn = Distortion().draw_at(rng, levels, side)
    return {f"distortion.{name}": rows for name, rows in drawn.items()}


def _rows(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}


def _on_device(key: str, part: str, images: Tensor, device: torch.device) -> Tensor:
    """Return uint8 images on a device: uploaded once; the host's own are used where they lie."""
    if device.type == "cpu":
        return images
    place = (key, part, device)
    there = _resident.get(place)
    if there is None:
        there = images.contiguous().to(device)  # in this order it is ready for every stream
        _resident[place] = there
    return there
