"""Analyses of stored test logits, without training again.

Other shot rules of the field, calibration by group, post-hoc logit adjustment and long-tailed test sets: all
are functions of the logits, the labels and the training counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench import metrics
from bench.cell import ShotRule
from bench.data.split.longtail import shot_groups
from bench.errors import BenchError, did_you_mean
from bench.metrics import Calibration, agnostic, score
from bench.metrics.classes import class_accuracies
from bench.result import Result

Groups = dict[str, list[int]]


@dataclass(frozen=True)
class Stored:
    """A run's test logits (N, C), labels (N,) and training counts (C,).

    `kind` is "train_prior" (the logits follow the training prior), "balanced" or "distances".
    `epoch_counts` (C,) are the counts of an epoch, if generated images joined the training images.
    """

    logits: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    kind: str
    shots: ShotRule
    epoch_counts: np.ndarray | None = None


def stored(run: Result) -> Stored:
    """Read the stored logits of a run.

    Raises:
        BenchError: the run is not done, stored no logits, or they are not on this machine.
    """
    if run.state.status != "done":
        raise BenchError(f"{run.run_id}: the run is {run.state.status}, and has no stored logits")
    record, remedy = run.record, f"`rerun {run.run_id}` makes them again"
    expected = (record.get("files") or {}).get("logits.npz")
    if expected is None or not run.directory.logits.exists():
        raise BenchError(f"{run.run_id}: its logits are not here; {remedy}")
    logits, labels = run.directory.read_logits(expected)
    counts = np.array(record["data"]["class_counts"])
    seen = np.array(record["data"].get("epoch_counts", counts))
    return Stored(
        logits.astype(np.float64), labels, counts, record["method"]["scores"], run.cell.dataset.shots, seen
    )


# -- shot rules -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rule:
    """A way to group classes; `pooled` averages over a group's images instead of its classes."""

    title: str
    used_by: str
    groups: Callable[[np.ndarray], Groups]
    pooled: bool = False


def _thresholds(many: int, few: int) -> Callable[[np.ndarray], Groups]:
    return lambda counts: shot_groups(counts, ShotRule(many_above=many, few_below=few))


def _slices(*sizes: int) -> Callable[[np.ndarray], Groups]:
    def groups(counts: np.ndarray) -> Groups:
        if len(counts) != sum(sizes):
            raise BenchError(f"this shot rule is made for {sum(sizes)} classes, not {len(counts)}")
        frequent_first = np.argsort(-counts, kind="stable")
        parts = np.split(frequent_first, np.cumsum(sizes)[:-1])
        return {
            name: sorted(part.tolist()) for name, part in zip(("many", "medium", "few"), parts, strict=True)
        }

    return groups


#: The rules in use, by name and version; a changed rule gets a new version, so that old numbers keep their
#: meaning. The first is ours.
SHOT_RULES = {
    "standard/1": Rule(
        "> 100, 20..100, < 20",
        "OLTR, decoupling, LDAM's heirs, BCL, PaCo, RIDE, SADE, ProCo",
        _thresholds(100, 20),
    ),
    "few_to_20/1": Rule("> 100, 21..100, <= 20", "CMO on ImageNet-LT and iNaturalist", _thresholds(100, 21)),
    "ncl/1": Rule(">= 100, 21..99, <= 20, over images", "NCL", _thresholds(99, 21), pooled=True),
    "slices_36_35_29/1": Rule(
        "the 36, 35 and 29 next frequent classes", "ResLT, MiSLAS", _slices(36, 35, 29)
    ),
    "thirds/1": Rule("the 33, 33 and 34 next frequent classes", "UniMix", _slices(33, 33, 34)),
}


def shots(run: Stored, rule: str) -> pd.DataFrame:
    """Return accuracy and number of classes of each shot group under a named rule; an empty group is NA."""
    if rule not in SHOT_RULES:
        raise BenchError(f"{rule}: no such shot rule{did_you_mean(rule, SHOT_RULES)}")
    chosen, hits, accuracies = SHOT_RULES[rule], _hits(run), _class_accuracies(run)
    rows = []
    for name, classes in chosen.groups(run.counts).items():
        accuracy, inside = None, np.isin(run.labels, classes)
        if inside.any():
            accuracy = 100 * hits[inside].mean() if chosen.pooled else np.nanmean(accuracies[classes])
        rows.append([name, len(classes), accuracy])
    table = pd.DataFrame(rows, columns=["group", "classes", "accuracy"])
    return table.astype({"group": "string", "classes": "Int64", "accuracy": "Float64"})


def _class_accuracies(run: Stored) -> np.ndarray:
    size = len(run.counts)
    hits = np.bincount(run.labels[_hits(run)], minlength=size)
    return class_accuracies(hits, np.bincount(run.labels, minlength=size))


def _hits(run: Stored) -> np.ndarray:
    return run.logits.argmax(axis=1) == run.labels


# -- calibration ----------------------------------------------------------------------------------
def calibration(run: Stored) -> pd.DataFrame:
    """Return a row of `bench.metrics.Calibration` for all test images and for each shot group.

    Confidence is the softmax of the logits, also of distances, which are no logits.
    """
    groups = {"all": list(range(len(run.counts))), **shot_groups(run.counts, run.shots)}
    return _calibration_table(metrics.calibration(run.logits, run.labels, groups))


def recorded_calibration(run: Result) -> pd.DataFrame | None:
    """Return the calibration that a run's record keeps, None for older records."""
    kept = (run.record.get("further_metrics") or {}).get("calibration")
    return None if kept is None else _calibration_table(kept)


def _calibration_table(found: Mapping[str, Calibration | None]) -> pd.DataFrame:
    columns = list(Calibration.__annotations__)
    rows = [[name, *((row or {"images": 0}).get(key) for key in columns)] for name, row in found.items()]
    table = pd.DataFrame(rows, columns=["group", *columns])
    return table.astype({"group": "string", "images": "Int64"} | dict.fromkeys(columns[1:], "Float64"))


# -- logit adjustment -----------------------------------------------------------------------------
def adjusted(run: Stored, taus: Sequence[float] = (0, 0.5, 1, 1.5, 2)) -> pd.DataFrame:
    """Sweep post-hoc logit adjustment, z - tau log pi (Menon et al., ICLR 2021): one row for each tau.

    The best tau of a sweep is chosen on the test set: an upper bound, not a result.

    Raises:
        BenchError: the logits do not follow the training prior, so there is none to subtract.
    """
    if run.kind != "train_prior":
        raise BenchError(f"these logits are declared {run.kind}; only train_prior logits can be adjusted")
    seen = run.counts if run.epoch_counts is None else run.epoch_counts
    if not (seen > 0).all():
        raise BenchError("a class without training images has no prior to adjust for")
    prior = np.log(seen / seen.sum())
    rows = [
        {"tau": tau, **score(run.logits - tau * prior, run.labels, run.counts, run.shots)} for tau in taus
    ]
    return pd.DataFrame(rows).drop(columns="per_class").astype("Float64")


# -- test distributions ---------------------------------------------------------------------------
def skewed(run: Stored, imbalance_factors: Sequence[float] = agnostic.RATIOS) -> pd.DataFrame:
    """Return the accuracy on long-tailed test sets, as LADE and SADE report it.

    Class shares fall exponentially by `imbalance_factor`: `forward` in the order of the training counts,
    `backward` in reverse; `uniform` is factor 1. Classes are weighted, not images dropped, so the accuracy is
    the expectation of what those papers estimate from a sample. The model does not know the shares.
    """
    accuracies = _class_accuracies(run)
    sets = [("forward", factor, factor) for factor in imbalance_factors] + [("uniform", 1.0, 1.0)]
    sets += [("backward", factor, 1 / factor) for factor in reversed(imbalance_factors)]
    rows = [
        [direction, float(factor), agnostic.weighted(accuracies, run.counts, ratio)]
        for direction, factor, ratio in sets
    ]
    table = pd.DataFrame(rows, columns=["direction", "imbalance_factor", "accuracy"])
    return table.astype({"direction": "string", "imbalance_factor": "Float64", "accuracy": "Float64"})
