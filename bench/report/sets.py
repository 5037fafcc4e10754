"""What the pages say of a data set of the literature without having it: its title and its shot groups."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.cell import ShotRule
from bench.data.catalogue import DATASETS
from bench.data.known import KNOWN
from bench.data.longtail import exponential, shot_groups
from bench.report.text import counted

TITLES = {name: dataset.title for name, dataset in DATASETS.items()}

#: Data sets as their tabs stand; others follow by name.
ORDER = ("cifar100", "cifar10", *KNOWN)

_RULE = ShotRule()
_CLASSES = {"cifar10": 10, "cifar100": 100}


def title(dataset: str, imbalance_factor: float, own: str | None = None) -> str:
    """Name a data set with its imbalance factor, which those with a tail of their own do not need.

    `own` is what a recipe calls a data set that the literature does not have.
    """
    name = TITLES.get(dataset) or own or dataset
    return name if dataset in KNOWN else f"{name}, imbalance factor {imbalance_factor:g}"


def group_heads(sizes: Mapping[str, int] | None, rule: ShotRule = _RULE) -> dict[str, str]:
    """Write the shot groups as heads of columns: their bounds, and their sizes if known."""
    bounds = {"many": f">{rule.many_above}", "medium": f"{rule.few_below}–{rule.many_above}"}
    bounds["few"] = f"<{rule.few_below}"
    told = {name: f": {counted(sizes[name], 'class')}" if sizes else "" for name in bounds}
    return {name: f"{name} ({bound}){told[name]}" for name, bound in bounds.items()}


def group_sizes(dataset: str, imbalance_factor: float) -> dict[str, int] | None:
    """Return how many classes each shot group has, None where it is not known."""
    if dataset in KNOWN:
        shots = KNOWN[dataset].lists["train"].shots
        return None if shots is None else dict(zip(("many", "medium", "few"), shots, strict=True))
    if dataset not in _CLASSES:
        return None
    counts = exponential(DATASETS[dataset].n_max or 0, imbalance_factor, _CLASSES[dataset])
    return {name: len(classes) for name, classes in shot_groups(np.asarray(counts), _RULE).items()}
