"""Test metrics, recomputable from stored logits.

Rates are in percent. A metric without data is None (n/a), never 0.
"""

from bench.metrics.classes import ByClass, gini, pareto_ratio
from bench.metrics.probabilities import BINS, Calibration, calibration
from bench.metrics.scoring import FullScore, Score, confusion_matrix, full_score, further, score
from bench.metrics.table import METRICS, RANKED, Metric, headline, value

__all__ = [
    "BINS",
    "METRICS",
    "RANKED",
    "ByClass",
    "Calibration",
    "FullScore",
    "Metric",
    "Score",
    "calibration",
    "confusion_matrix",
    "full_score",
    "further",
    "gini",
    "headline",
    "pareto_ratio",
    "score",
    "value",
]
