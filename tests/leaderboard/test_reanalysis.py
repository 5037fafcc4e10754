"""Analyses of stored logits: other shot rules, calibration, adjusted logits, skewed test sets."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_factory import fail, finish, make_cell
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from bench import ledger
from bench.cell import ShotRule
from bench.data.split.longtail import exponential
from bench.errors import BenchError
from bench.leaderboard import reanalysis
from bench.leaderboard.reanalysis import SHOT_RULES, Stored
from bench.metrics import further, score
from bench.records import Results
from bench.report.run_analysis import analysis

RULE = ShotRule(many_above=60, few_below=20)


@pytest.fixture(scope="module")
def digits() -> Stored:
    """A linear classifier of real digits, trained on a long tail."""
    images, labels = load_digits(return_X_y=True)
    counts = exponential(120, 20, 10)
    train = np.concatenate([np.flatnonzero(labels == c)[:n] for c, n in enumerate(counts)])
    test = np.concatenate([np.flatnonzero(labels == c)[120:] for c in range(10)])
    model = LogisticRegression(max_iter=500).fit(images[train] / 16, labels[train])
    return Stored(model.decision_function(images[test] / 16), labels[test], counts, "train_prior", RULE)


def made(counts: list[int], labels: list[int], predicted: list[int]) -> Stored:
    return Stored(
        np.eye(len(counts))[predicted], np.array(labels), np.array(counts), "train_prior", ShotRule()
    )


def groups(run: Stored, rule: str) -> dict[str, tuple[int, float | None]]:
    rows = reanalysis.shots(run, rule).to_dict("records")
    return {
        row["group"]: (row["classes"], None if pd.isna(row["accuracy"]) else row["accuracy"]) for row in rows
    }


# -- shot rules -----------------------------------------------------------------------------------
def test_the_standard_rule_gives_the_stored_metrics(digits: Stored) -> None:
    run = replace(digits, shots=ShotRule())
    expected = score(run.logits, run.labels, run.counts, run.shots)
    found = groups(run, "standard/1")
    assert {name: value for name, (_, value) in found.items()} == pytest.approx(
        {name: expected[name] for name in ("many", "medium", "few")}
    )


def test_rules_disagree_at_their_borders() -> None:
    run = made([101, 100, 21, 20, 19], [0, 1, 2, 3, 4], [0, 0, 2, 0, 4])
    sizes = {rule: [size for size, _ in groups(run, rule).values()] for rule in list(SHOT_RULES)[:3]}
    assert sizes == {"standard/1": [1, 3, 1], "few_to_20/1": [1, 2, 2], "ncl/1": [2, 1, 2]}


@pytest.mark.parametrize(
    ("imbalance_factor", "standard", "ncl_few"),
    [(100, [35, 35, 30], 31), (50, [41, 41, 18], 19), (10, [69, 31, 0], 0)],
)
def test_class_counts_of_cifar100(imbalance_factor: int, standard: list[int], ncl_few: int) -> None:
    counts = exponential(500, imbalance_factor, 100).tolist()
    run = made(counts, [0], [0])
    assert [size for size, _ in groups(run, "standard/1").values()] == standard
    assert groups(run, "ncl/1")["few"][0] == ncl_few
    assert [size for size, _ in groups(run, "slices_36_35_29/1").values()] == [36, 35, 29]


def test_an_empty_group_is_not_zero() -> None:
    run = made([500, 400], [0, 1], [1, 0])
    assert groups(run, "standard/1") == {"many": (2, 0.0), "medium": (0, None), "few": (0, None)}


def test_one_rule_means_over_images() -> None:
    run = made([500, 400], [0, 0, 0, 1], [0, 0, 0, 0])
    assert groups(run, "standard/1")["many"] == (2, 50.0)
    assert groups(run, "ncl/1")["many"] == (2, 75.0)


def test_slices_follow_the_counts_not_the_labels() -> None:
    counts = exponential(500, 100, 100)[::-1]
    assert SHOT_RULES["thirds/1"].groups(counts)["few"] == list(range(34))


def test_a_rule_that_does_not_fit_is_refused(digits: Stored) -> None:
    with pytest.raises(BenchError, match="made for 100 classes, not 10"):
        reanalysis.shots(digits, "thirds/1")
    with pytest.raises(BenchError, match="did you mean 'standard/1'"):
        reanalysis.shots(digits, "standard")


# -- calibration ----------------------------------------------------------------------------------
def test_calibration_is_the_metric_s_and_the_tail_is_overconfident(digits: Stored) -> None:
    found = reanalysis.calibration(digits).set_index("group")
    expected = score(digits.logits, digits.labels, digits.counts, digits.shots)
    assert found.loc["all", "ece"] == pytest.approx(expected["ece"])
    assert found.loc["all", "accuracy"] == pytest.approx(expected["accuracy"])
    assert found.loc["all", "images"] == found.loc[["many", "medium", "few"], "images"].sum()
    overconfidence = found["confidence"] - found["accuracy"]
    assert overconfidence["few"] > overconfidence["many"] + 5


def test_a_group_without_images_has_no_calibration() -> None:
    found = reanalysis.calibration(made([500, 400], [0, 1], [0, 0])).set_index("group")
    assert found.loc["few", "images"] == 0
    assert found.loc["few", ["accuracy", "confidence", "ece"]].isna().all()


# -- logit adjustment -----------------------------------------------------------------------------
def test_adjustment_lifts_the_tail_of_real_digits(digits: Stored) -> None:
    found = reanalysis.adjusted(digits, (0, 1, 2)).set_index("tau")
    expected = score(digits.logits, digits.labels, digits.counts, digits.shots)
    assert found.loc[0, "accuracy"] == pytest.approx(expected["accuracy"])
    assert found.loc[1, "few"] > found.loc[0, "few"] + 5
    assert found["few"].is_monotonic_increasing
    assert found.loc[1, "balanced"] > found.loc[0, "balanced"]


@settings(deadline=None)
@given(st.floats(0, 5))
def test_adjustment_undoes_a_prior_that_was_put_in(tau: float) -> None:
    counts, rng = np.array([500, 50, 5]), np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    clean = rng.normal(size=(60, 3)) + 2 * np.eye(3)[labels]
    tilted = Stored(clean + tau * np.log(counts), labels, counts, "train_prior", ShotRule())
    found = reanalysis.adjusted(tilted, (tau,)).iloc[0]
    assert found["accuracy"] == pytest.approx(score(clean, labels, counts, ShotRule())["accuracy"])


@pytest.mark.parametrize("kind", ["balanced", "distances"])
def test_scores_without_the_prior_are_never_adjusted(digits: Stored, kind: str) -> None:
    with pytest.raises(BenchError, match=f"declared {kind}; only train_prior"):
        reanalysis.adjusted(replace(digits, kind=kind))


def test_a_class_without_images_has_no_prior(digits: Stored) -> None:
    with pytest.raises(BenchError, match="no prior"):
        reanalysis.adjusted(replace(digits, counts=digits.counts * (np.arange(10) > 0)))


# -- test distributions ---------------------------------------------------------------------------
def test_a_skewed_test_set_favours_what_a_model_favours(digits: Stored) -> None:
    found = reanalysis.skewed(digits, (50, 5))
    assert found["direction"].tolist() == ["forward"] * 2 + ["uniform"] + ["backward"] * 2
    assert found["accuracy"].is_monotonic_decreasing
    uniform = found.set_index("direction").loc["uniform", "accuracy"]
    assert uniform == pytest.approx(score(digits.logits, digits.labels, digits.counts, RULE)["balanced"])


def test_shares_of_a_skewed_test_set_are_exponential_in_the_order_of_counts() -> None:
    run = made([5, 500], [0, 1], [1, 1])  # only the frequent class 1 is hit
    found = reanalysis.skewed(run, (4,))["accuracy"].tolist()
    assert found == pytest.approx([100 * 4 / 5, 50, 100 / 5])


def test_classes_without_test_images_are_left_out() -> None:
    found = reanalysis.skewed(made([500, 50, 5], [0, 2], [0, 0]), (9,))["accuracy"].tolist()
    assert found == pytest.approx([90, 50, 10])


# -- stored logits --------------------------------------------------------------------------------
def test_stored_scores_give_the_record_s_metrics(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    found = reanalysis.stored(Results(tmp_path)[run.run_id])
    metrics = run.read_record()["metrics"]
    assert score(found.logits, found.labels, found.counts, found.shots)["many"] == metrics["many"]
    assert found.kind == "train_prior"


def test_a_record_without_scores_is_reported(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell(), files={})
    with pytest.raises(BenchError, match="its logits are not here"):
        reanalysis.stored(Results(tmp_path)[run.run_id])
    run = finish(tmp_path, make_cell("ldam_drw"))
    run.logits.unlink()
    with pytest.raises(BenchError, match=rf"its logits are not here; `rerun {run.run_id}` makes them"):
        reanalysis.stored(Results(tmp_path)[run.run_id])
    with pytest.raises(BenchError, match="no stored logits"):
        reanalysis.stored(Results(tmp_path)[fail(tmp_path, make_cell("crt"), "out of memory").run_id])


def test_calibration_by_shot_group_outlives_the_scores(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    found = reanalysis.stored(Results(tmp_path)[run.run_id])
    assert reanalysis.recorded_calibration(Results(tmp_path)[run.run_id]) is None
    assert analysis([Results(tmp_path)[run.run_id]])[0][1][0] == "Calibration"
    kept = further(found.logits, found.labels, found.counts, found.shots)
    finish(tmp_path, make_cell(), further_metrics=kept)
    ledger.export(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    recorded = reanalysis.recorded_calibration(Results(tmp_path)[run.run_id])
    pd.testing.assert_frame_equal(recorded, reanalysis.calibration(found))
    ((name, _, table),), lacking = analysis([Results(tmp_path)[run.run_id]])
    assert (name, len(table.rows)) == ("Calibration", 4)
    assert "its logits are not here" in lacking
