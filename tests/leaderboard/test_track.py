"""The test-agnostic track: exact expectations, against drawn test sets, and its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_factory import DIGITS, finish, make_cell

from bench.leaderboard import gather, track
from bench.metrics import agnostic
from bench.records import Results
from bench.report.track_page import render_track
from bench.rundir import RunDir

ADAPTED = {"accuracy": {name: 90.0 + i for i, name in enumerate(agnostic.TEST_SETS)}}


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 20), st.floats(1, 50), st.integers(0, 2**32 - 1))
def test_shares_fall_by_their_ratio_in_the_order_of_the_counts(classes: int, ratio: float, seed: int) -> None:
    counts = np.random.default_rng(seed).permutation(np.arange(1, classes + 1) * 7)
    forward, backward = agnostic.shares(counts, ratio), agnostic.shares(counts, 1 / ratio)
    order = np.argsort(-counts)
    assert forward.sum() == pytest.approx(1)
    assert forward[order[0]] / forward[order[-1]] == pytest.approx(ratio)
    np.testing.assert_allclose(np.diff(np.log(forward[order])), -np.log(ratio) / (classes - 1), atol=1e-9)
    np.testing.assert_allclose(backward[order], forward[order][::-1])


def test_it_is_what_drawn_test_sets_have_on_average() -> None:
    """SADE's rule: of class c the first int(M r^(c/(C-1))) of its shuffled test images."""
    rng, classes, size = np.random.default_rng(0), 10, 1000
    truth = np.linspace(0.9, 0.3, classes)
    hits = [rng.permutation(np.arange(size) < share * size) for share in truth]
    counts = np.array([int(size * 0.02 ** (c / 9)) for c in range(classes)])
    drawn = []
    for _ in range(200):
        chosen = [rng.permutation(hit)[:kept] for hit, kept in zip(hits, counts, strict=True)]
        drawn.append(100 * np.concatenate(chosen).mean())
    found = agnostic.weighted(100 * truth, np.arange(classes)[::-1], 50.0)
    assert found == pytest.approx(np.mean(drawn), abs=0.1)


def test_the_even_set_is_balanced_accuracy_and_an_untested_class_has_no_share() -> None:
    accuracies, counts = np.array([80.0, np.nan, 20.0]), np.array([9, 5, 1])
    found = agnostic.track(accuracies, counts)
    assert list(found)[:2] == ["forward 50", "forward 25"]
    assert len(found) == 11
    assert found["uniform"] == pytest.approx(50)
    assert found["forward 50"] == pytest.approx((80 * 1 + 20 / 50) / (1 + 1 / 50))
    assert found["backward 50"] == pytest.approx((80 / 50 + 20) / (1 + 1 / 50))


def lines(results: Path) -> list[track.Row]:
    board = gather(Results(results))
    return track.rows(line for tab in board.tabs for line in tab.lines if line.kind == "measured")


def test_rows_have_means_over_seeds_and_adapted_ones_come_last(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        finish(tmp_path, make_cell("ce", seed, dataset=DIGITS))
        finish(tmp_path, make_cell("ldam_drw", seed, dataset=DIGITS), test_agnostic=ADAPTED)
    found = lines(tmp_path)
    assert [(row.line.entry["method"], row.adapted) for row in found[:2]] != [("ldam_drw", True)]
    assert [row.adapted for row in found] == [False, False, True]
    record = RunDir(tmp_path, make_cell("ce", 0, dataset=DIGITS).run_id).read_record()
    per_class, counts = np.array(record["metrics"]["per_class"]), np.array(record["data"]["class_counts"])
    (plain,) = [row for row in found if row.line.entry["method"] == "ce"]
    assert plain.by_seed[0]["backward 10"] == pytest.approx(agnostic.weighted(per_class, counts, 0.1))
    values = [plain.by_seed[seed]["uniform"] for seed in (0, 1, 2)]
    assert plain.means["uniform"] == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert plain.by_seed[0]["mean"] == pytest.approx(
        np.mean([plain.by_seed[0][s] for s in agnostic.TEST_SETS])
    )
    assert found[-1].means["mean"] == (pytest.approx(95), pytest.approx(0))
    assert all(found[-1].key not in keys for keys in track.bold(found).values())  # 95 would win


def test_the_page_has_a_table_for_each_league(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        finish(tmp_path, make_cell("ce", seed, dataset=DIGITS), test_agnostic=ADAPTED)
    noisy = DIGITS.model_copy(update={"label_noise": 0.2})
    finish(tmp_path, make_cell("crt", dataset=noisy))
    page, document = (path.read_text() for path in render_track(gather(Results(tmp_path)), tmp_path))
    assert page.count("<table") == document.count("| method | n | forward 50 |") == 2
    assert "tail label noise 0.2" in document
    assert document.count("adapted: saw unlabelled test images") == 1
    (row,) = [line for line in document.splitlines() if "adapted: saw" in line]
    assert [cell.strip() for cell in row.split("|")][3:5] == ["90.0 ± 0.0", "91.0 ± 0.0"]


def test_without_runs_the_page_says_so(tmp_path: Path) -> None:
    for path in render_track(gather(Results(tmp_path)), tmp_path):
        assert "Nothing is measured yet" in path.read_text()
