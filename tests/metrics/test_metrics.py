"""The metrics: against published values, against plain arithmetic, and what must hold for any scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from bench.cell import ShotRule
from bench.errors import BenchError
from bench.metrics import confusion_matrix, full_score, score

GOLDEN = ROOT / "tests/golden" / "classic_shot_accuracy_c10.npz"
RULE = ShotRule()


def scores_of(predictions: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float16)[predictions]


def test_shot_accuracies_are_those_of_the_field() -> None:
    golden = np.load(GOLDEN)
    got = score(scores_of(golden["in_preds"], 10), golden["in_labels"], golden["in_cls_num"], RULE)

    assert got["per_class"] == pytest.approx(100 * golden["out_per_class"])
    for ours, theirs in {"many": "many", "medium": "medium", "few": "few", "accuracy": "overall"}.items():
        assert got[ours] == pytest.approx(100 * float(golden[f"out_{theirs}"]))


def test_an_empty_group_is_not_zero() -> None:
    labels = np.array([0, 1])
    got = score(scores_of(labels, 2), labels, np.array([5000, 500]), RULE)
    assert (got["many"], got["medium"], got["few"]) == (100.0, None, None)


def test_the_rule_has_its_bounds_in_the_middle() -> None:
    counts = np.array([101, 100, 20, 19])
    labels = np.arange(4)
    predictions = np.array([0, 0, 2, 0])  # hit, miss, hit, miss
    got = score(scores_of(predictions, 4), labels, counts, RULE)
    assert (got["many"], got["medium"], got["few"]) == (100.0, 50.0, 0.0)

    got = score(scores_of(predictions, 4), labels, counts, ShotRule(many_above=99, few_below=21))
    assert (got["many"], got["medium"], got["few"]) == (50.0, None, 50.0)


def test_a_class_without_test_images_counts_nowhere() -> None:
    got = score(scores_of(np.array([0, 1, 0]), 3), np.array([0, 1, 1]), np.array([200, 200, 200]), RULE)
    assert got["per_class"] == [100.0, 50.0, None]
    assert got["many"] == got["balanced"] == 75.0
    assert got["worst_class"] == 50.0
    assert got["harmonic"] == pytest.approx(2 / (1 / 100 + 1 / 50))
    assert got["accuracy"] == pytest.approx(200 / 3)


def test_a_class_never_hit_takes_the_harmonic_mean_to_zero() -> None:
    got = score(scores_of(np.array([0, 0]), 2), np.array([0, 1]), np.array([9, 9]), RULE)
    assert (got["harmonic"], got["worst_class"], got["balanced"]) == (0.0, 0.0, 50.0)


def test_calibration_error_by_hand() -> None:
    # Softmax of (log 3, 0) is (.75, .25): four predictions of class 0 at .75, of which two are right.
    logits = np.tile([np.log(3.0), 0.0], (4, 1))
    got = score(logits, np.array([0, 0, 1, 1]), np.array([2, 2]), RULE)
    assert got["ece"] == pytest.approx(25.0)
    sure = score(np.array([[1000.0, 0.0]] * 4), np.zeros(4, dtype=int), np.array([2, 2]), RULE)
    assert sure["ece"] == pytest.approx(0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    logits = np.zeros((3, 2), dtype=np.float16)
    logits[1, 0] = bad
    with pytest.raises(BenchError, match="NaN or an infinity"):
        score(logits, np.array([0, 1, 1]), np.array([2, 2]), RULE)


@pytest.mark.parametrize(
    ("labels", "counts"),
    [([0, 1], [1, 1]), ([0, 1, 2], [1, 1]), ([0, -1, 1], [1, 1]), ([0, 1, 1], [1, 1, 1])],
)
def test_arrays_that_do_not_fit_are_refused(labels: list[int], counts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"fit|lie in|class"):
        score(np.zeros((3, 2)), np.array(labels), np.array(counts), RULE)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classes, images = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(scale=draw(st.sampled_from([0.1, 3.0, 300.0])), size=(images, classes))
    return logits.astype(np.float16), rng.integers(classes, size=images), rng.integers(1, 300, size=classes)


@settings(max_examples=60, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_order_of_images_and_names_of_classes_do_not_matter(problem, random) -> None:
    logits, labels, counts = problem
    images, classes = list(range(len(labels))), list(range(len(counts)))
    random.shuffle(images)
    random.shuffle(classes)
    renamed = np.argsort(classes)[labels]
    before = score(logits, labels, counts, RULE)
    # Rounded scores have ties, which go to the first class: rename only where there are none.
    unique = all(len(set(row)) == len(row) for row in logits.tolist())
    for after in (
        score(logits[images], labels[images], counts, RULE),
        score(logits[:, classes], renamed, counts[classes], RULE) if unique else before,
    ):
        for key in before.keys() - {"per_class"}:
            assert after[key] == (before[key] and pytest.approx(before[key])), key


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_share_is_one_and_the_means_are_ordered(problem) -> None:
    logits, labels, counts = problem
    got = score(logits, labels, counts, RULE)
    shares = [value for key, value in got.items() if key != "per_class" and value is not None]
    assert all(0 <= share <= 100 for share in shares)
    assert got["worst_class"] <= got["harmonic"] + 1e-9
    assert got["harmonic"] <= got["balanced"] + 1e-9
    tested = [value for value in got["per_class"] if value is not None]
    assert got["balanced"] == pytest.approx(np.mean(tested))


@settings(max_examples=30, deadline=None)
@given(problems())
def test_confusion_matrix_holds_every_image(problem) -> None:
    logits, labels, counts = problem
    predictions = logits.argmax(axis=1)
    matrix = confusion_matrix(predictions, labels, len(counts))
    assert matrix.sum(axis=1).tolist() == np.bincount(labels, minlength=len(counts)).tolist()
    got = score(logits, labels, counts, RULE)
    assert 100 * matrix.trace() / len(labels) == pytest.approx(got["accuracy"])


def test_many_images_are_scored_as_few_are(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9000, 3)).astype(np.float16), rng.integers(3, size=9000)
    got = score(logits, labels, np.array([5, 5, 5]), RULE)
    assert got["accuracy"] == pytest.approx(100 * (logits.argmax(axis=1) == labels).mean())
    whole = full_score(logits, labels, np.array([5, 5, 5]), RULE)
    monkeypatch.setattr("bench.metrics.probabilities.CHUNK_NUMBERS", 100)
    assert full_score(logits, labels, np.array([5, 5, 5]), RULE) == whole | {
        name: pytest.approx(value) for name, value in whole.items() if isinstance(value, float)
    }
