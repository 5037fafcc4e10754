"""Evaluation: a method's logits on its test set while it trains, and on any images afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.captured import Play, at_once
from bench.cell import Cell, DataSet
from bench.data.feed.framing import test_frame
from bench.data.feed.streaming import loader_for
from bench.data.read.folder import decode, list_images
from bench.data.split.load import load
from bench.errors import BenchError, did_you_mean
from bench.method import Method
from bench.metrics import FullScore, full_score
from bench.rundir import RunDir
from bench.train.checkpoint import restored

_BATCH = 100


@torch.inference_mode()
def logits_of(method: Method, batches: Iterable[Tensor], play: Play = at_once) -> Tensor:
    """Return the logits (N, C) in float16 for batches of normalised images, in order.

    All metrics are computed from these rounded logits, so that they can be recomputed from what is stored.
    The network runs in float32: in bfloat16 the best classes of an image would often be equal.
    """
    method.eval()
    return torch.cat([_logits(method, images, play) for images in batches])


def _logits(method: Method, images: Tensor, play: Play) -> Tensor:
    logits = play(("logits", len(images)), lambda: method(images).half(), list)
    return logits.clone()  # the next replay overwrites them


def evaluate_run(run: RunDir, data: Path, folder: Path | None = None) -> FullScore:
    """Evaluate a finished run's weights on its test set, or on a folder with one folder of images per class.

    Raises:
        BenchError: the run is not done, its weights are missing or damaged, or the folder has a class
            that the run was not trained on.
    """
    record, cell = run.read_record(), run.read_cell()
    if record["status"] != "done":
        raise BenchError(f"{run.run_id}: is {record['status']}, and has no weights to score")
    counts = np.array(record["data"]["class_counts"])
    method = restored(run, cell, record)
    if folder is None:
        real = cell.dataset.model_copy(update={"extra_train": None})  # the test set needs no extra images
        loader = loader_for(load(real, cell.imbalance_factor, data), method.views, cell, "cpu")
        batches: Iterable[Tensor] = (images for images, _ in loader.test())
        labels = loader.split.test_labels
    else:
        images, labels = _folder(folder, record["data"]["class_names"], cell.dataset)
        batches = _normalised(images, cell)
    return full_score(logits_of(method, batches).numpy(), labels, counts, cell.dataset.shots)


def _folder(folder: Path, class_names: list[str], dataset: DataSet) -> tuple[np.ndarray, np.ndarray]:
    classes = list_images(folder).classes
    for name in classes:
        if name not in class_names:
            raise BenchError(
                f"{folder / name}: the run knows no class {name!r}{did_you_mean(name, class_names)}"
            )
    labels = [class_names.index(name) for name, files in classes.items() for _ in files]
    framed = test_frame if dataset.on_disk else None
    return decode(classes, dataset.image_size, framed, upright=dataset.upright), np.array(labels)


def _normalised(images: np.ndarray, cell: Cell) -> Iterable[Tensor]:
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (cell.dataset.mean, cell.dataset.std))
    for rows in torch.from_numpy(np.ascontiguousarray(images)).split(_BATCH):
        yield (rows.permute(0, 3, 1, 2).float() / 255 - mean) / std
