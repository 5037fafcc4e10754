"""What is said of a data set of the literature without having it: its title and its shot groups."""

from __future__ import annotations

import numpy as np

from bench.cell import ShotRule
from bench.data.sets.catalogue import DATASETS
from bench.data.sets.known import KNOWN
from bench.data.split.longtail import exponential, shot_groups

TITLES = {name: dataset.title for name, dataset in DATASETS.items()}

#: Data sets as their tabs stand; others follow by name.
ORDER = ("cifar100", "cifar10", *KNOWN)

_RULE = ShotRule()
_CLASSES = {"cifar10": 10, "cifar100": 100}


def title(dataset: str, own: str | None = None) -> str:
    """Name a data set; `own` is what a recipe calls one that the literature does not have."""
    return TITLES.get(dataset) or own or dataset


def has_own_tail(dataset: str) -> bool:
    """Tell whether it comes with its tail, and so needs no imbalance factor to be named by."""
    return dataset in KNOWN


def group_sizes(dataset: str, imbalance_factor: float) -> dict[str, int] | None:
    """Return how many classes each shot group has, None where it is not known."""
    if dataset in KNOWN:
        shots = KNOWN[dataset].lists["train"].shots
        return None if shots is None else dict(zip(("many", "medium", "few"), shots, strict=True))
    if dataset not in _CLASSES:
        return None
    counts = exponential(DATASETS[dataset].n_max or 0, imbalance_factor, _CLASSES[dataset])
    return {name: len(classes) for name, classes in shot_groups(np.asarray(counts), _RULE).items()}
