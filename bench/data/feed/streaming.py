"""Batches of images that do not fit in memory: read and framed by worker processes, coloured on the device.

All randomness is drawn beforehand, as for images in memory, and handed to the workers row by row. So it does
not matter how many there are, nor which of them makes a batch. Of several ranks (see `bench.ranks`) each
reads its own rows, and has the others' squares from them.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.cell import Cell
from bench.cores import readers
from bench.data.augment import crop_boxes
from bench.data.feed.framing import PicturePolicy, picture_policy, test_frame
from bench.data.feed.loader import Loader
from bench.data.read.pictures import Pictures
from bench.data.split.load import InMemory, OnDisk, Split
from bench.errors import BenchError
from bench.method import Batch, View
from bench.ranks import all_rows, own_rows

Tables = Mapping[str, np.ndarray]

PREFETCH = 2  # batches that each worker makes ahead


def loader_for(
    split: Split,
    views: tuple[View, ...],
    cell: Cell,
    device: str | torch.device,
    *,
    extra_sampler: str | None = None,
) -> Loader:
    """Return the loader that a split needs, by where its images are."""
    if isinstance(split, OnDisk):
        return StreamingLoader(split, views, cell, device, extra_sampler=extra_sampler)
    assert isinstance(split, InMemory)
    return Loader(split, views, cell, device, extra_sampler=extra_sampler)


@dataclass(frozen=True)
class Order:
    """A batch to be made: which images, and the rows of each view's tables; without rows as for a test."""

    part: str
    positions: np.ndarray
    tables: tuple[Tables, ...] = ()
    boxes: Tables | None = None


class Workshop(Dataset[Any]):
    """Makes the batches that are ordered, in whatever process it is asked to.

    Args:
        parts: the images of each part; the positions of a part go through its members in turn.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[Pictures]],
        views: tuple[View, ...],
        policies: Sequence[PicturePolicy],
        size: int,
    ) -> None:
        self.parts, self.views, self.policies, self.size = parts, views, policies, size

    def __getitem__(self, order: Order) -> list[Tensor] | str:
        """Return each view after its geometry (B, 3, H, W) uint8, or the fault that was met."""
        try:
            return self._views(order) if order.tables else [self._tested(order)]
        except BenchError as error:  # raised here, it would come wrapped in a traceback of the worker
            return str(error)

    def _tested(self, order: Order) -> Tensor:
        frames = [test_frame(self._open(order.part, p), self.size) for p in order.positions.tolist()]
        return _stacked([np.asarray(frame) for frame in frames])

    def _views(self, order: Order) -> list[Tensor]:
        squares: list[list[np.ndarray]] = [[] for _ in self.views]
        for place, position in enumerate(order.positions.tolist()):
            picture = self._open(order.part, position)
            for i, (view, rule) in enumerate(zip(self.views, self.policies, strict=True)):
                if view.patch_of is None:
                    row = {name: rows[place] for name, rows in order.tables[i].items()}
                    squares[i].append(np.asarray(rule.frame(picture, row, self.size)))
        shaped: list[Tensor] = []
        for view, rule, some, table in zip(self.views, self.policies, squares, order.tables, strict=True):
            if view.patch_of is not None:
                boxes = torch.from_numpy((order.boxes or {})[view.boxes])
                source = crop_boxes(shaped[view.patch_of], boxes, view.side(self.size))
            else:
                source = _stacked(some)
            rows = {name: torch.from_numpy(rows) for name, rows in table.items()}
            shaped.append(rule.geometry(source, rows).contiguous())
        return shaped

    def _open(self, part: str, position: int) -> Any:
        for pictures in self.parts[part]:
            if position < len(pictures):
                return pictures.open(position)
            position -= len(pictures)
        raise IndexError(position)


class StreamingLoader(Loader):
    """Training, validation and test batches of one run whose images stay on disk.

    Attributes:
        workers: processes that read images (see `bench.cores`).
    """

    policies: list[PicturePolicy]  # type: ignore[assignment]

    def __init__(
        self,
        split: OnDisk,
        views: tuple[View, ...],
        cell: Cell,
        device: str | torch.device,
        *,
        extra_sampler: str | None = None,
    ) -> None:
        self._settle(split, views, cell, device, extra_sampler)
        on_gpu = self.device.type == "cuda"
        self.test_batch_size = min(256, 2 * self.batch_size) if on_gpu else 100
        self.workers = readers(on_gpu)
        self._where = split.epoch_positions(self.seed, 0)
        self._labels = self._upload(split.labels)
        if split.val_labels is not None:
            self.val_labels = split.val_labels
        every = {
            "train": (split.pictures, split.extra_pictures),
            "val": (split.val_pictures,),
            "test": (split.test_pictures,),
        }
        parts = {part: [some for some in of if some is not None] for part, of in every.items()}
        self._workshop = Workshop(parts, views, self.policies, split.dataset.image_size)
        self._orders: list[Order] = []
        self._reader: DataLoader[Any] = DataLoader(
            self._workshop,
            batch_size=None,  # an order is a batch already
            sampler=self._orders,
            num_workers=self.workers,
            multiprocessing_context=_context() if self.workers else None,
            persistent_workers=self.workers > 0,
            prefetch_factor=PREFETCH if self.workers else None,
            pin_memory=on_gpu,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # or it would draw from the one that all share
        )

    def epoch(
        self, epoch: int, epochs: int, sampler: str, draws: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0 of `epochs`; see `Loader.epoch`."""
        self._where = self.split.epoch_positions(self.seed, epoch)
        draws = draws or {}
        plans = [self._drawn(sampler, (), epoch, epochs)]
        if self.extra_sampler:
            plans.append(self._drawn(self.extra_sampler, ("extra",), epoch, epochs))
        boxes = {view.boxes: draws[view.boxes] for view in self.views if view.patch_of is not None}
        steps = [slice(i * self.batch_size, (i + 1) * self.batch_size) for i in range(self.steps)]
        made = self._make(self._order(plan, boxes, rows) for rows in steps for plan in plans)
        for rows in steps:
            some = {name: self._upload(array[rows]) for name, array in draws.items()}
            arrived = [next(made) for _ in plans]
            second = self._arrived(arrived[1], plans[1], rows, some) if self.extra_sampler else None
            yield self._arrived(arrived[0], plans[0], rows, some, second)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test set in its order, unaugmented: images (B, 3, H, W) and labels (B,)."""
        yield from self._tested("test", np.arange(len(self.split.test_labels)), self.split.test_labels)

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the validation set likewise."""
        yield from self._tested("val", np.arange(len(self.val_labels)), self.val_labels)

    def train_eval(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the real training images as they would be tested: in their order, unaugmented."""
        positions = self.split.positions
        yield from self._tested("train", positions, self.split.labels[: len(positions)])

    def images_at(self, positions: Tensor) -> Tensor:
        """Return training images by their positions (B,) in the subset, normalised, unaugmented."""
        made = self._workshop[Order("train", self._where[positions.cpu().numpy()])]
        return self._normalise(_unless_fault(made)[0].to(self.device))

    def _policy(self, name: str) -> PicturePolicy:
        return picture_policy(name)

    def _probed(self, positions: np.ndarray, tables: dict[str, np.ndarray]) -> Tensor:
        order = Order("train", self._where[positions], (tables,))
        made = _unless_fault(self._workshop[order])[0].to(self.device)
        there = {name: self._upload(table) for name, table in tables.items()}
        return self._normalise(self.policies[0].colour(made, there))

    def _order(
        self, plan: tuple[np.ndarray, list[dict[str, np.ndarray]]], boxes: Tables, rows: slice
    ) -> Order:
        positions, tables = plan
        rows = _own(rows, len(positions))
        return Order(
            "train", self._where[positions[rows]], tuple(_rows(t, rows) for t in tables), _rows(boxes, rows)
        )

    def _arrived(
        self,
        shaped: list[Tensor],
        plan: tuple[np.ndarray, list[dict[str, np.ndarray]]],
        rows: slice,
        draws: dict[str, Tensor],
        extra: Batch | None = None,
    ) -> Batch:
        """Upload a batch from the workers, and colour and normalise its views."""
        positions = self._upload(plan[0][rows])
        size = len(positions)
        views = []
        for images, rule, table in zip(shaped, self.policies, plan[1], strict=True):
            there = all_rows(images.to(self.device, non_blocking=True), size)
            colours = {name: self._upload(row) for name, row in _rows(table, rows).items()}
            views.append(self._normalise(rule.colour(there, colours)))
        return Batch(tuple(views), self._labels[positions], positions, draws, extra)

    def _tested(
        self, part: str, positions: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[Tensor, Tensor]]:
        starts = range(0, len(positions), self.test_batch_size)
        steps = [slice(start, start + self.test_batch_size) for start in starts]
        made = self._make(Order(part, positions[_own(rows, len(positions))]) for rows in steps)
        for rows, (images,) in zip(steps, made, strict=True):
            there = self._upload(labels[rows])
            squares = all_rows(images.to(self.device, non_blocking=True), len(there))
            yield self._normalise(squares), there

    def _make(self, orders: Iterable[Order]) -> Iterator[list[Tensor]]:
        """Yield what was ordered, in this order, made ahead by the workers."""
        self._orders[:] = orders
        if self._orders:
            yield from map(_unless_fault, self._reader)


def _unless_fault(made: list[Tensor] | str) -> list[Tensor]:
    if isinstance(made, str):
        raise BenchError(made)
    return made


def _rows(tables: Tables, rows: slice) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in tables.items()}


def _own(rows: slice, count: int) -> slice:
    """Return which of a batch's rows, of `count` in all, this rank reads."""
    own = own_rows(min(rows.stop, count) - rows.start)
    return slice(rows.start + own.start, rows.start + own.stop)


def _stacked(squares: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def _context() -> Any:
    """Return how worker processes start: from a server, so that they inherit no lock and no CUDA."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _leave_signals_to_the_run(worker: int) -> None:
    """Go on when a cluster tells all processes of a job to end: the run knows what to do, and ends us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
