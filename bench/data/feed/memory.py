"""Batches of images in memory: gathered, augmented and normalised on the run's device.

Nothing is done image by image in Python. An epoch's order and augmentation tables are uploaded once, into the
tensors of the epoch before, which a step captured in a CUDA graph reads.
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

from bench.captured import at_once, play_for
from bench.cell import Cell
from bench.data.augment import Policy, crop_boxes, policy
from bench.data.feed.loader import Loader
from bench.data.split.load import InMemory
from bench.method import Batch, View
from bench.randomness import generator

#: Where batches are replayed from a CUDA graph, several are made together, up to this many images: on a
#: single batch the kernel of an operation leaves most of a GPU idle. The bytes are the same.
IMAGES_AT_ONCE = 1024

#: Images on a device, shared by the loaders that exist at the same time.
_resident: WeakValueDictionary[tuple[str, str, torch.device], Tensor] = WeakValueDictionary()


@dataclass(frozen=True)
class _Plan:
    """An epoch's positions (n,) and each view's augmentation tables, n rows, on the device."""

    positions: Tensor
    tables: list[dict[str, Tensor]]

    def rows(self, rows: Tensor) -> _Plan:
        return _Plan(self.positions.index_select(0, rows), [_rows(table, rows) for table in self.tables])


class MemoryLoader(Loader):
    """Batches of a split in memory; each reuses the tensors of the previous one of its size."""

    def __init__(
        self,
        split: InMemory,
        views: tuple[View, ...],
        cell: Cell,
        device: str | torch.device,
        *,
        extra_sampler: str | None = None,
    ) -> None:
        super().__init__(split, views, cell, device, extra_sampler=extra_sampler)
        self.play = play_for(cell.mode, self.device)
        # measured: evaluation on a CPU is fastest with about 100 images at once; a GPU needs more
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

    def epoch(
        self, epoch: int, epochs: int, sampler: str, draws: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[Batch]:
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
        """Yield batches that were made together, each in the tensors of the previous one of its size."""
        for start in range(0, len(made.labels), self.batch_size):
            batch = made.map(itemgetter(slice(start, start + self.batch_size)))
            size = len(batch.labels)
            if size not in self._current:
                self._current[size] = batch.map(torch.clone)
            else:
                for kept, new in zip(self._current[size].tensors(), batch.tensors(), strict=True):
                    kept.copy_(new)
            yield self._current[size]

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        def images(size: int) -> Tensor:
            made = self._normalise(self._test_images.index_select(0, self._test_rows[:size]))
            self._test_rows.add_(self.test_batch_size)
            return made

        torch.arange(self.test_batch_size, out=self._test_rows)
        for labels in self._test_labels.split(self.test_batch_size):
            size = len(labels)
            yield self.play(("test", size), partial(images, size), lambda: [self._test_rows]), labels

    def test_view(self, name: str, view: int) -> Iterator[Tensor]:
        rule, size = self._policy(name), self.split.dataset.image_size
        tables = rule.draw(generator("test view", view, self.seed), len(self.split.test_labels), size)
        for start in range(0, len(self.split.test_labels), self.test_batch_size):
            rows = slice(start, start + self.test_batch_size)
            uploaded = {key: self._upload(table[rows]) for key, table in tables.items()}
            yield self._normalise(rule.apply(self._test_images[rows], uploaded))

    def train_eval(self) -> Iterator[tuple[Tensor, Tensor]]:
        real = torch.arange(len(self.split.positions), device=self.device)
        for positions in real.split(self.test_batch_size):
            yield self.images_at(positions), self._labels[positions]

    def images_at(self, positions: Tensor) -> Tensor:
        return self._normalise(self._gather(positions))

    def _policy(self, name: str) -> Policy:
        return policy(name)

    def _plan(self, sampler: str, stream: tuple[str, ...], epoch: int, epochs: int) -> _Plan:
        positions, tables = self._drawn(sampler, stream, epoch, epochs)
        prefix = " ".join(stream)
        uploaded = [
            {name: self._keep(f"{prefix} view {i} {name}", array) for name, array in table.items()}
            for i, table in enumerate(tables)
        ]
        return _Plan(self._keep(f"{prefix} order", positions), uploaded)

    def _probed(self, positions: np.ndarray, tables: dict[str, np.ndarray]) -> Tensor:
        uploaded = {name: self._upload(table) for name, table in tables.items()}
        return self._normalise(self.policies[0].apply(self._gather(self._upload(positions)), uploaded))

    def _batch(self, plan: _Plan, draws: dict[str, Tensor], extra: Batch | None = None) -> Batch:
        images = self._gather(plan.positions)
        shaped: list[Tensor] = []  # after geometry, before colour: patches are cut from these
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

    def _keep(self, name: str, array: np.ndarray) -> Tensor:
        """Upload an array into the tensor of that name, from which a captured step reads it."""
        if name not in self._kept:
            self._kept[name] = self._upload(array).clone()
            return self._kept[name]
        return self._kept[name].copy_(torch.from_numpy(np.ascontiguousarray(array)), non_blocking=True)


def _rows(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}


def _on_device(key: str, part: str, images: Tensor, device: torch.device) -> Tensor:
    """Return uint8 images on a device, uploaded once; on the CPU they are not copied."""
    if device.type == "cpu":
        return images
    resident = _resident.get((key, part, device))
    if resident is None:
        resident = images.contiguous().to(device)  # in this order it is ready for every stream
        _resident[key, part, device] = resident
    return resident
