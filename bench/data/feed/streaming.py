"""Batches of images that do not fit in memory: read and framed by worker processes, coloured on the device.

All random numbers are drawn beforehand, as for images in memory, and sent to the workers. So batches do not
depend on the number of workers, nor on which of them makes a batch. Of several ranks (see `bench.ranks`) each
reads its own rows of a batch and receives the other rows.
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
from bench.data.feed.memory import MemoryLoader
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
    """Return the loader of a split, for images in memory or on disk."""
    if isinstance(split, OnDisk):
        return StreamingLoader(split, views, cell, device, extra_sampler=extra_sampler)
    assert isinstance(split, InMemory)
    return MemoryLoader(split, views, cell, device, extra_sampler=extra_sampler)


@dataclass(frozen=True)
class Request:
    """A batch to make: its images, and the rows of each view's tables; without tables framed as in a test."""

    part: str
    positions: np.ndarray
    tables: tuple[Tables, ...] = ()
    boxes: Tables | None = None


class Batches(Dataset[Any]):
    """Makes the batches that are requested, in any process.

    Args:
        parts: the images of each part; positions count through its members in turn.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[Pictures]],
        views: tuple[View, ...],
        policies: Sequence[PicturePolicy],
        size: int,
    ) -> None:
        self.parts, self.views, self.policies, self.size = parts, views, policies, size

    def __getitem__(self, request: Request) -> list[Tensor] | str:
        """Return each view after its geometry (B, 3, H, W) uint8, or the message of an error."""
        try:
            return self._views(request) if request.tables else [self._test_frames(request)]
        except BenchError as error:  # raised here, it would be wrapped in a traceback of the worker
            return str(error)

    def _test_frames(self, request: Request) -> Tensor:
        frames = [test_frame(self._open(request.part, p), self.size) for p in request.positions.tolist()]
        return _stacked([np.asarray(frame) for frame in frames])

    def _views(self, request: Request) -> list[Tensor]:
        squares: list[list[np.ndarray]] = [[] for _ in self.views]
        for j, position in enumerate(request.positions.tolist()):
            picture = self._open(request.part, position)
            for i, (view, rule) in enumerate(zip(self.views, self.policies, strict=True)):
                if view.patch_of is None:
                    row = {name: rows[j] for name, rows in request.tables[i].items()}
                    squares[i].append(np.asarray(rule.frame(picture, row, self.size)))
        shaped: list[Tensor] = []
        for view, rule, some, table in zip(self.views, self.policies, squares, request.tables, strict=True):
            if view.patch_of is not None:
                boxes = torch.from_numpy((request.boxes or {})[view.boxes])
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
    """Batches of a split whose images stay on disk.

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
        super().__init__(split, views, cell, device, extra_sampler=extra_sampler)
        on_gpu = self.device.type == "cuda"
        self.test_batch_size = min(256, 2 * self.batch_size) if on_gpu else 100
        self.workers = readers(on_gpu)
        self._positions = split.epoch_positions(self.seed, 0)
        self._labels = self._upload(split.labels)
        if split.val_labels is not None:
            self.val_labels = split.val_labels
        optional = {
            "train": (split.pictures, split.extra_pictures),
            "val": (split.val_pictures,),
            "test": (split.test_pictures,),
        }
        parts = {part: [some for some in of if some is not None] for part, of in optional.items()}
        self._batches = Batches(parts, views, self.policies, split.dataset.image_size)
        self._requests: list[Request] = []
        self._reader: DataLoader[Any] = DataLoader(
            self._batches,
            batch_size=None,  # a request is for a whole batch
            sampler=self._requests,
            num_workers=self.workers,
            multiprocessing_context=_context() if self.workers else None,
            persistent_workers=self.workers > 0,
            prefetch_factor=PREFETCH if self.workers else None,
            pin_memory=on_gpu,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # by default it would draw from torch's global generator
        )

    def epoch(
        self, epoch: int, epochs: int, sampler: str, draws: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[Batch]:
        self._positions = self.split.epoch_positions(self.seed, epoch)
        draws = draws or {}
        plans = [self._drawn(sampler, (), epoch, epochs)]
        if self.extra_sampler:
            plans.append(self._drawn(self.extra_sampler, ("extra",), epoch, epochs))
        boxes = {view.boxes: draws[view.boxes] for view in self.views if view.patch_of is not None}
        steps = [slice(i * self.batch_size, (i + 1) * self.batch_size) for i in range(self.steps)]
        read = self._read(self._request(plan, boxes, rows) for rows in steps for plan in plans)
        for rows in steps:
            some = {name: self._upload(array[rows]) for name, array in draws.items()}
            shaped = [next(read) for _ in plans]
            second = self._batch_from(shaped[1], plans[1], rows, some) if self.extra_sampler else None
            yield self._batch_from(shaped[0], plans[0], rows, some, second)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._unaugmented("test", np.arange(len(self.split.test_labels)), self.split.test_labels)

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._unaugmented("val", np.arange(len(self.val_labels)), self.val_labels)

    def train_eval(self) -> Iterator[tuple[Tensor, Tensor]]:
        positions = self.split.positions
        yield from self._unaugmented("train", positions, self.split.labels[: len(positions)])

    def images_at(self, positions: Tensor) -> Tensor:
        made = self._batches[Request("train", self._positions[positions.cpu().numpy()])]
        return self._normalise(_checked(made)[0].to(self.device))

    def _policy(self, name: str) -> PicturePolicy:
        return picture_policy(name)

    def _probed(self, positions: np.ndarray, tables: dict[str, np.ndarray]) -> Tensor:
        request = Request("train", self._positions[positions], (tables,))
        made = _checked(self._batches[request])[0].to(self.device)
        uploaded = {name: self._upload(table) for name, table in tables.items()}
        return self._normalise(self.policies[0].colour(made, uploaded))

    def _request(
        self, plan: tuple[np.ndarray, list[dict[str, np.ndarray]]], boxes: Tables, rows: slice
    ) -> Request:
        positions, tables = plan
        rows = _own(rows, len(positions))
        some = tuple(_rows(table, rows) for table in tables)
        return Request("train", self._positions[positions[rows]], some, _rows(boxes, rows))

    def _batch_from(
        self,
        shaped: list[Tensor],
        plan: tuple[np.ndarray, list[dict[str, np.ndarray]]],
        rows: slice,
        draws: dict[str, Tensor],
        extra: Batch | None = None,
    ) -> Batch:
        """Upload the views of a batch, apply their colour operations and normalise them."""
        positions = self._upload(plan[0][rows])
        size = len(positions)
        views = []
        for images, rule, table in zip(shaped, self.policies, plan[1], strict=True):
            uploaded = all_rows(images.to(self.device, non_blocking=True), size)
            colours = {name: self._upload(row) for name, row in _rows(table, rows).items()}
            views.append(self._normalise(rule.colour(uploaded, colours)))
        return Batch(tuple(views), self._labels[positions], positions, draws, extra)

    def _unaugmented(
        self, part: str, positions: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[Tensor, Tensor]]:
        starts = range(0, len(positions), self.test_batch_size)
        steps = [slice(start, start + self.test_batch_size) for start in starts]
        read = self._read(Request(part, positions[_own(rows, len(positions))]) for rows in steps)
        for rows, (images,) in zip(steps, read, strict=True):
            uploaded = self._upload(labels[rows])
            squares = all_rows(images.to(self.device, non_blocking=True), len(uploaded))
            yield self._normalise(squares), uploaded

    def _read(self, requests: Iterable[Request]) -> Iterator[list[Tensor]]:
        """Yield the requested batches in order; the workers make them ahead."""
        self._requests[:] = requests
        if self._requests:
            yield from map(_checked, self._reader)


def _checked(made: list[Tensor] | str) -> list[Tensor]:
    """Return the views of a batch, or raise the error that its worker met."""
    if isinstance(made, str):
        raise BenchError(made)
    return made


def _rows(tables: Tables, rows: slice) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in tables.items()}


def _own(rows: slice, count: int) -> slice:
    """Return the part of the batch `rows`, of `count` rows in all, that this rank reads."""
    own = own_rows(min(rows.stop, count) - rows.start)
    return slice(rows.start + own.start, rows.start + own.stop)


def _stacked(squares: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def _context() -> Any:
    """Return the context in which workers start: from a server, so that they inherit no lock and no CUDA."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _ignore_signals(worker: int) -> None:
    """Ignore the signals that a cluster sends to all processes of a job: the run handles them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
