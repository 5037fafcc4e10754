"""What is said of a data set of the literature without having it: its title and its shot groups."""

from __future__ import annotations

from collections.abc import Sequence

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


def tail(counts: Sequence[int]) -> str:
    """Call a data set's own tail by its largest and smallest class."""
    most, least = max(counts), min(counts)
    if most == least:
        return f"{most:,} images of each class"
    return f"its own tail of {most:,} to {least:,} images"


def known_tail(dataset: str) -> str:
    """Do so of a data set of the literature; empty of one whose tail is cut."""
    return (
        tail((KNOWN[dataset].lists["train"].most, KNOWN[dataset].lists["train"].least))
        if dataset in KNOWN
        else ""
    )


def group_sizes(dataset: str, imbalance_factor: float) -> dict[str, int] | None:
    """Return how many classes each shot group has, None where it is not known."""
    if dataset in KNOWN:
        shots = KNOWN[dataset].lists["train"].shots
        return None if shots is None else dict(zip(("many", "medium", "few"), shots, strict=True))
    if dataset not in _CLASSES:
        return None
    counts = exponential(DATASETS[dataset].n_max or 0, imbalance_factor, _CLASSES[dataset])
    return {name: len(classes) for name, classes in shot_groups(np.asarray(counts), _RULE).items()}
