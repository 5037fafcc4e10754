"""Titles, tails and shot groups of the data sets of the literature, without their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.cell import ShotRule
from bench.data.sets.catalogue import DATASETS
from bench.data.sets.known import KNOWN
from bench.data.split.longtail import exponential, shot_groups

#: The first data sets in the sequence of tabs; others follow by name.
ORDER = ("cifar100", "cifar10", *KNOWN)

_RULE = ShotRule()
_CLASSES = {"cifar10": 10, "cifar100": 100}


def title(dataset: str, own: str | None = None) -> str:
    """Return a data set's title; `own` is the recipe's title for one that the literature lacks."""
    return (DATASETS[dataset].title if dataset in DATASETS else own) or dataset


def tail(counts: Sequence[int]) -> str:
    """Describe a data set's own tail by its largest and smallest class."""
    most, least = max(counts), min(counts)
    if most == least:
        return f"{most:,} images of each class"
    return f"its own tail of {most:,} to {least:,} images"


def known_tail(dataset: str) -> str:
    """Describe the own tail of a data set of the literature; empty if it has none."""
    if dataset not in KNOWN:
        return ""
    images = KNOWN[dataset].lists["train"]
    return tail((images.most, images.least))


def group_sizes(dataset: str, imbalance_factor: float) -> dict[str, int] | None:
    """Return the number of classes of each shot group, None if unknown."""
    if dataset in KNOWN:
        shots = KNOWN[dataset].lists["train"].shots
        return None if shots is None else dict(zip(("many", "medium", "few"), shots, strict=True))
    if dataset not in _CLASSES:
        return None
    counts = exponential(DATASETS[dataset].n_max or 0, imbalance_factor, _CLASSES[dataset])
    return {name: len(classes) for name, classes in shot_groups(np.asarray(counts), _RULE).items()}
