"""Checks of cells before training, and their training time at the speed of past runs on this device."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.cell import Cell, DataSet
from bench.errors import BenchError
from bench.records import Results

if TYPE_CHECKING:
    import numpy as np


def training_images(cell: Cell, data: Path) -> int:
    """Count the images of an epoch of a cell; data that is missing is a `BenchError`."""
    counts, drawn = _counts(cell.dataset, cell.imbalance_factor, data)
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


class Pace:
    """Images per second of a core or a GPU in past runs; `problems` are those with the data of new runs.

    The speed of a GPU that runs shared is their speed times their number.
    """

    def __init__(self, results: Path, data: Path, on_gpu: bool) -> None:
        from bench.train.describe import environment

        self.data = data
        self.problems: dict[str, None] = {}
        device = environment("cuda" if on_gpu else "cpu")["device"]
        self.past: dict[tuple[str, ...], list[float]] = {}
        for run in Results(results):
            if run.state.status == "done" and run.record["environment"]["device"] == device:
                timing, cell = run.record["timing"], run.cell
                backbone, size = cell.backbone.name, str(cell.dataset.image_size)
                if timing["images_per_second"] is not None:
                    pace = timing["images_per_second"] * timing.get("runs_at_once", 1)
                    alike = (cell.method.name, backbone, size, cell.mode)
                    self.past.setdefault(alike, []).append(pace)
                    self.past.setdefault((backbone, size), []).append(pace)

    def seconds(self, cell: Cell) -> float | None:
        """Estimate the training time from runs of its method, or else its backbone, on images as large."""
        if not registry.find(cell.method.name).build.trains:
            return 0.0
        try:
            images = training_images(cell, self.data) * cell.protocol.epochs
        except BenchError as error:
            self.problems[str(error)] = None
            return None
        backbone, size = cell.backbone.name, str(cell.dataset.image_size)
        alike = (cell.method.name, backbone, size, cell.mode)
        paces = sorted(self.past.get(alike) or self.past.get((backbone, size)) or [])
        return images / paces[len(paces) // 2] if paces else None


def total(times: Mapping[str, float | None], cells: Mapping[str, Cell], slots: int) -> float | None:
    """Estimate how long runs take on a number of cores or GPUs; runs of unknown time are left out."""
    if times and all(seconds is None for seconds in times.values()):
        return None
    known = {run_id: seconds or 0.0 for run_id, seconds in times.items()}
    chains = (sum(known.get(member.run_id, 0.0) for member in cells[r].family()) for r in known)
    return max(sum(known.values()) / slots, max(chains, default=0.0))
