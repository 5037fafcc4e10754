"""The metrics that tables show, each declared once: its head, its help and its source.

To add one, write a function of `ByClass` in `bench.metrics.classes` and a line here; every run has it, old
ones too. A metric that needs the logits goes into `Calibration`, and its line has its path in a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.metrics import classes
from bench.metrics.classes import ByClass


@dataclass(frozen=True)
class Metric:
    """How a metric is shown and where it comes from.

    Attributes:
        head: the column's head.
        help: its explanation.
        of: computes it if a record lacks it, from what every record has.
        path: the keys that lead to it in a record; by default its name under `metrics`.
    """

    head: str
    help: str
    of: Callable[[ByClass], float | None] | None = None
    path: tuple[str, ...] = ()


_GROUP = "mean accuracy of the classes with this many training images"
_LOGITS = "unknown for runs whose logits were not kept"


def _calibration(head: str, help: str, name: str) -> Metric:
    path = ("further_metrics", "calibration", "all", name)
    return Metric(head, f"{help}; {_LOGITS}. Less is better", path=path)


#: All metrics by their names in a record; the first ranks if the test set is balanced.
METRICS = {
    "accuracy": Metric(
        "accuracy (last epoch)",
        "test accuracy in percent after the last epoch, mean ± standard deviation over seeds. Bold: the best "
        "measured over three seeds or more, all whose difference to it over common seeds may be noise (t "
        "test at 5 %, with a variance shared by the league: the median over rows), and the best published. "
        "Italics: one seed; one or two are never bold",
    ),
    "many": Metric("many", _GROUP),
    "medium": Metric("medium", _GROUP),
    "few": Metric("few", _GROUP),
    "balanced": Metric("balanced", "mean over classes of their accuracies", classes.balanced),
    "worst_class": Metric("worst class", "the lowest accuracy of a class", classes.worst_class),
    "harmonic": Metric("harmonic", "harmonic mean over classes of their accuracies", classes.harmonic),
    "ece": Metric("ECE", "expected calibration error: the distance of confidence from accuracy in 15 bins"),
    "geometric": Metric("geometric", "geometric mean over classes of their accuracies", classes.geometric),
    "worst_tenth": Metric(
        "worst 10 %",
        "mean accuracy of the tenth of the classes with the lowest accuracies",
        classes.worst_tenth,
    ),
    "macro_f1": Metric(
        "macro F1",
        "mean over classes of F1, in percent; unknown for older runs with more than 200 classes",
        classes.macro_f1,
        path=("further_metrics", "macro_f1"),
    ),
    "gini": Metric(
        "Gini",
        "inequality of the class accuracies: their Gini coefficient in percent. Less is better",
        classes.inequality,
    ),
    "adaptive_ece": _calibration("adaptive ECE", "ECE with bins of equally many images", "adaptive_ece"),
    "classwise_ece": _calibration(
        "class-wise ECE", "mean over classes of the calibration error of their probability", "classwise_ece"
    ),
    "nll": _calibration("NLL", "mean negative log-likelihood of the true class, in nats", "nll"),
    "brier": _calibration("Brier", "mean squared error of the probabilities, from 0 to 2", "brier"),
}

#: The metrics that methods are ranked and printed in bold by.
RANKED = ("accuracy", "many", "medium", "few")


def value(name: str, record: Mapping[str, Any], confusion: Callable[[], np.ndarray | None]) -> float | None:
    """Return a metric of a record, computed if the record lacks it; None if it cannot be known.

    Args:
        confusion: unpacks the record's confusion matrix, which takes a moment.
    """
    metric, metrics = METRICS[name], record.get("metrics") or {}
    known: Any = metrics.get(name)
    if known is None and metric.path:
        known = record
        for key in metric.path:
            known = (known or {}).get(key)
    if known is None and metric.of is not None and metrics.get("per_class"):
        accuracies = np.array(metrics["per_class"], dtype=np.float64)
        known = metric.of(ByClass(accuracies, confusion() if metric.of is classes.macro_f1 else None))
    return None if known is None else float(known)


def headline(test_counts: Any) -> str:
    """Name the metric that ranks: balanced accuracy if classes have unequal numbers of test images."""
    counts = {int(count) for count in test_counts if count}
    return "balanced" if len(counts) > 1 else RANKED[0]
