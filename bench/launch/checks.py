"""Checks of cells before any of them is trained: their data, backbones and methods."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.cell import Cell, DataSet
from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np


def training_images(cell: Cell, data: Path) -> int:
    """Count the images of an epoch of a cell; data that is missing is a `BenchError`."""
    counts, drawn = _counts(cell.dataset, cell.imbalance_factor, data)
    if most := cell.protocol.subsample:  # label noise may change which class is the smallest
        counts = counts.clip(max=counts[counts > 0].min() * most)
    return int(counts.sum()) + drawn


@functools.cache
def _counts(dataset: DataSet, imbalance_factor: float, data: Path) -> tuple[np.ndarray, int]:
    """Return the class counts (C,) of a long tail, and how many extra images an epoch draws."""
    from bench.data.read import sources
    from bench.data.split.extra import read_extra

    counts, _, class_names = sources.tail(dataset, imbalance_factor, data)
    extra = read_extra(dataset, counts, class_names, data)
    return counts, 0 if extra is None else int(extra.drawn.sum())


def check_data(cells: Iterable[Cell], data: Path) -> list[str]:
    """Read and check the data of cells as `data check` does, and return its remarks.

    Raises:
        BenchError: a line for each data set that is missing or has faults.
    """
    from bench.data.sets.check import before_training
    from bench.recipe.schema import each

    def check(cell: Cell) -> list[str]:
        counts, _ = _counts(cell.dataset, cell.imbalance_factor, data)
        return before_training(cell.dataset, data, counts)

    remarks = each(check, {(cell.dataset, cell.imbalance_factor): cell for cell in cells}.values())
    return list(dict.fromkeys(remark for some in remarks for remark in some))


def check_backbones(cells: Iterable[Cell], data: Path) -> list[str]:
    """Check that the cells' backbones take images of their size.

    Methods that need a ViT enlarge images to its own size, so they take all.

    Raises:
        BenchError: a line for each that does not.
    """
    from bench.backbones import check_input
    from bench.recipe.schema import each

    asked = {
        (cell.backbone.name, cell.dataset.image_size, *sorted(cell.backbone.options.items())): cell
        for cell in cells
        if registry.find(cell.method.name).build.needs_backbone != "vit"
    }
    each(
        lambda cell: check_input(cell.backbone.name, cell.dataset.image_size, **cell.backbone.options),
        asked.values(),
    )
    return []


def check_methods(cells: Iterable[Cell], data: Path) -> list[str]:
    """Check that the cells' methods can be built on their backbones, from their parents, by their protocol.

    Methods with their defaults on a backbone of several stages, and nothing of the protocol that a method
    may refuse, are not checked: all can.

    Raises:
        BenchError: a line for each that cannot.
    """
    import torch

    from bench import backbones
    from bench.data.feed.loader import policies_of
    from bench.recipe.schema import each
    from bench.train.build import build
    from bench.train.displaced import displacement

    @functools.cache
    def in_stages(name: str) -> bool:
        with torch.device("meta"):
            return len(backbones.create(name).stage_names) > 1

    def is_usual(cell: Cell) -> bool:
        changed = any(member.method.changed or any(_refusable(member)) for member in cell.family())
        return not (changed or cell.backbone.options) and in_stages(cell.backbone.name)

    def check(cell: Cell) -> None:
        try:
            counts, _ = _counts(cell.dataset, cell.imbalance_factor, data)
        except BenchError:
            return  # `check_data` reports it
        try:
            with torch.device("meta"):  # shapes only
                method = build(cell, counts)
                policies_of(method.views, cell.protocol)
                displacement(method, cell.protocol.optimizer)
        except BenchError as error:
            raise BenchError(f"{cell.run_id}: {error}") from error
        except Exception:  # not a fault: some things need numbers
            return

    each(check, {_kind(cell): cell for cell in cells if not is_usual(cell)}.values())
    return []


#: All checks before training; each returns remarks, and raises faults.
CHECKS = (check_backbones, check_data, check_methods)


def check(cells: Sequence[Cell], data: Path) -> list[str]:
    """Make all checks of cells before training, and return their remarks; the first faults are raised."""
    return [remark for one in CHECKS for remark in one(cells, data)]


def _kind(cell: Cell) -> str:
    """Return what decides how a method is built: all but the seed and most of the protocol."""
    members = [(member.method, member.backbone, _refusable(member)) for member in cell.family()]
    return repr((cell.dataset.name, members))


def _refusable(cell: Cell) -> tuple[object, ...]:
    """Return what of its protocol a method may refuse."""
    return cell.protocol.label_smoothing, cell.protocol.optimizer.sharpness, cell.protocol.views
