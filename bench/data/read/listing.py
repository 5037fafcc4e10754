"""The parts of a data set as lists of images, whether from list files, folders or containers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.read import containers, folder
from bench.data.read.lists import Listing, ListSet, read_lists
from bench.data.read.readers import KINDS


def listed(dataset: DataSet, data_dir: Path) -> ListSet:
    """Return the parts of a data set: a folder tree class after class, containers in their own order.

    Raises:
        BenchError: something is missing or wrong.
    """
    if dataset.source == "list":
        return read_lists(dataset, data_dir)
    if dataset.source in KINDS:
        return containers.index(dataset, containers.root_of(dataset, data_dir), data_dir)
    return _of_tree(dataset, folder.root_of(dataset, data_dir))


def _of_tree(dataset: DataSet, root: Path) -> ListSet:
    found = {}
    parts = folder.list_tree(root, dataset.parts)
    for name, part in parts.items():
        paths = np.array([os.fsencode(path.relative_to(root)) for path in part.files])
        labels = folder.labels_of(part.classes)
        found[name] = Listing(root / name, paths, labels, np.arange(1, len(labels) + 1))
    classes = tuple(parts["train"].classes)
    return ListSet(root, found["train"], found["test"], found.get("val"), classes)
