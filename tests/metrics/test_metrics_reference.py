"""Every metric against a plain reference: scikit-learn's or SciPy's where they have it, else a loop."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_factory import finish, make_cell
from scipy.stats import gmean, hmean
from sklearn.metrics import f1_score, log_loss, recall_score

from bench.cell import ShotRule
from bench.metrics import (
    BINS,
    METRICS,
    ByClass,
    calibration,
    full_score,
    further,
    gini,
    headline,
    pareto_ratio,
    score,
)
from bench.metrics import classes as of_classes
from bench.records import Results
from bench.rundir import equal

RULE = ShotRule()


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (N, C), labels (N,) of which some classes may have none, and training counts (C,)."""
    classes, images = draw(st.integers(2, 25)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(classes, size=images)
    logits = rng.normal(scale=draw(st.sampled_from([0.1, 2.0, 100.0])), size=(images, classes))
    logits[np.arange(images), labels] += draw(st.sampled_from([0.0, 2.0, 500.0]))
    return logits.astype(np.float16), labels, rng.integers(1, 300, size=classes)


def softmax(logits: np.ndarray) -> np.ndarray:
    rows = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return rows / rows.sum(axis=1, keepdims=True)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_metrics_of_classes(problem) -> None:
    logits, labels, counts = problem
    found, predicted = full_score(logits, labels, counts, RULE), logits.argmax(axis=1)
    present = [100 * float((predicted[labels == c] == c).mean()) for c in np.unique(labels)]
    rising = sorted(present)
    tenth = rising[: max(1, math.ceil(len(present) / 10))]
    differences = sum(abs(a - b) for a in present for b in present)
    expected = {
        "balanced": 100 * recall_score(labels, predicted, average="macro", labels=np.unique(labels)),
        "worst_class": rising[0],
        "worst_tenth": sum(tenth) / len(tenth),
        "harmonic": hmean(present),
        "geometric": gmean(present) if rising[0] else 0.0,
        "macro_f1": 100
        * f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    if any(present):
        n, mean = len(present), sum(present) / len(present)
        assert found["gini"] == pytest.approx(100 * differences / (2 * n * n * mean), abs=1e-9)
    else:
        assert found["gini"] is None


def looped(confidence: np.ndarray, hit: np.ndarray, bins: list[np.ndarray]) -> float:
    """A calibration error in percent, bin by bin."""
    gaps = [len(b) * abs(hit[b].mean() - confidence[b].mean()) for b in bins if len(b)]
    return 100 * sum(gaps) / len(hit)


def equal_width(confidence: np.ndarray) -> list[np.ndarray]:
    edges = [(i / BINS, (i + 1) / BINS) for i in range(BINS)]
    return [
        np.flatnonzero((confidence > low) & (confidence <= high) | ((low == 0) & (confidence == 0)))
        for low, high in edges
    ]


@settings(max_examples=40, deadline=None)
@given(problems())
def test_metrics_of_probabilities_by_shot_group(problem) -> None:
    logits, labels, counts = problem
    shares, classes = softmax(logits), len(counts)
    groups = {
        "all": list(range(classes)),
        "many": [c for c in range(classes) if counts[c] > 100],
        "medium": [c for c in range(classes) if 20 <= counts[c] <= 100],
        "few": [c for c in range(classes) if counts[c] < 20],
    }
    found = further(logits, labels, counts, RULE)["calibration"]
    assert list(found) == list(groups)
    errors = [
        looped(shares[:, c], (labels == c).astype(float), equal_width(shares[:, c])) for c in range(classes)
    ]
    for name, members in groups.items():
        inside = np.isin(labels, members)
        if not inside.any():
            assert found[name] is None
            continue
        own, true = shares[inside], labels[inside]
        confidence, hit = own.max(axis=1), own.argmax(axis=1) == true
        rising = np.argsort(confidence, kind="stable")
        size, more = divmod(len(rising), BINS)
        places = np.cumsum([0] + [size + 1] * more + [size] * (BINS - more))
        mass = [rising[a:b] for a, b in itertools.pairwise(places)]
        expected = {
            "images": int(inside.sum()),
            "accuracy": 100 * hit.mean(),
            "confidence": 100 * confidence.mean(),
            "ece": looped(confidence, hit, equal_width(confidence)),
            "adaptive_ece": looped(confidence, hit, mass),
            "classwise_ece": np.mean([errors[c] for c in members]),
            "brier": np.mean(((own - np.eye(classes)[true]) ** 2).sum(axis=1)),
        }
        assert {key: found[name][key] for key in expected} == pytest.approx(expected, abs=1e-6)
        if own[np.arange(len(true)), true].min() > 1e-14:  # scikit-learn clips
            assert found[name]["nll"] == pytest.approx(log_loss(true, own, labels=range(classes)), abs=1e-6)


def test_a_sure_mistake_costs_its_margin() -> None:
    found = calibration(np.array([[1000.0, 0.0]]), np.array([1]), {"all": [0, 1]})["all"]
    assert (found["nll"], found["brier"], found["ece"]) == (1000.0, 2.0, 100.0)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40))
def test_gini_and_pareto_ratio_of_a_tail(counts: list[int]) -> None:
    n = len(counts)
    expected = sum(abs(a - b) for a in counts for b in counts) / (2 * n * sum(counts))
    assert gini(np.array(counts)) == pytest.approx(expected, abs=1e-12)
    falling, q = sorted(counts, reverse=True), 1
    while 5 * sum(falling[:q]) < 4 * sum(counts):
        q += 1
    assert pareto_ratio(np.array(counts)) == (n - q) / q


def test_tails_that_are_known() -> None:
    assert gini(np.full(10, 7)) == pytest.approx(0)
    assert pareto_ratio(np.full(10, 7)) == 0.25
    assert pareto_ratio(np.array([80, 5, 5, 5, 5])) == 4
    assert gini(np.array([0, 0, 0, 1])) == 0.75


def test_the_headline_is_balanced_where_the_test_set_is_not() -> None:
    assert headline([50, 50, 50]) == headline([50, 0, 50]) == "accuracy"
    assert headline([50, 49, 50]) == "balanced"


# -- of records -----------------------------------------------------------------------------------
def test_older_runs_have_every_metric_of_their_classes(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    record, row = run.read_record(), Results(tmp_path)[run.run_id].row
    scores, labels = run.read_logits(record["files"]["logits.npz"])
    whole = full_score(scores, labels, np.array(record["data"]["class_counts"]), RULE)
    of_scores = {"nll", "brier", "adaptive_ece", "classwise_ece"}
    for name in METRICS.keys() - of_scores:
        assert row[name] == pytest.approx(whole[name]), name
    assert [row[name] for name in sorted(of_scores)] == [None] * 4


def test_newer_runs_have_all(tmp_path: Path) -> None:
    old = finish(tmp_path / "old", make_cell())
    record = old.read_record()
    scores, labels = old.read_logits(record["files"]["logits.npz"])
    counts = np.array(record["data"]["class_counts"])
    new = finish(tmp_path / "new", make_cell(), further_metrics=further(scores, labels, counts, RULE))
    row = Results(tmp_path / "new")[new.run_id].row
    whole = full_score(scores, labels, counts, RULE)
    assert {name: row[name] for name in METRICS} == pytest.approx({name: whole[name] for name in METRICS})
    assert equal(new.read_record(), record)  # or every older run would seem to have changed
    changed = {"macro_f1": 1.0, "calibration": {}}
    other = finish(tmp_path / "other", make_cell(), further_metrics=changed)
    assert not equal(new.read_record(), other.read_record())


def test_a_class_without_test_images_counts_in_no_mean() -> None:
    tested = ByClass(np.array([50.0, np.nan, 100.0]), np.array([[1, 1, 0], [0, 0, 0], [0, 0, 2]]))
    assert of_classes.geometric(tested) == pytest.approx(math.sqrt(5000))
    assert of_classes.worst_tenth(tested) == 50
    assert of_classes.macro_f1(tested) == pytest.approx((200 / 3 + 100) / 2)
    assert score(np.eye(3), np.array([0, 2, 2]), np.array([9, 9, 9]), RULE)["per_class"][1] is None
