"""Paired differences over seeds, their interval, and what is printed in bold."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.leaderboard import best, difference
from bench.leaderboard.compare import FEWEST_SEEDS, noise, tied

scores = st.dictionaries(st.integers(0, 9), st.floats(0, 100), max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=9))
def test_the_interval_is_the_paired_t_test_s(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = np.array(pairs).T
    found = difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    gaps = ours - theirs
    assert found.mean == pytest.approx(gaps.mean())
    assert found.n == len(pairs)
    if gaps.std() > 1e-9:
        low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_only_common_seeds_count() -> None:
    found = difference({0: 50.0, 1: 51.0, 7: 99.0}, {0: 49.0, 1: 50.0, 8: 0.0})
    assert (found.mean, found.low, found.high, found.n) == (1, 1, 1, 2)
    assert not found.low <= 0 <= found.high


def test_what_the_seeds_share_is_no_noise() -> None:
    seeds = {0: 40.0, 1: 60.0, 2: 50.0}
    better = {seed: value + 1 + 0.01 * seed for seed, value in seeds.items()}
    assert difference(better, seeds).low > 0.9


@pytest.mark.parametrize("theirs", [{0: 10.0}, {}])
def test_one_common_seed_or_none_says_nothing(theirs: dict[int, float]) -> None:
    found = difference({0: 50.0, 1: 51.0}, theirs)
    assert (found.low, found.high, found.n) == (-math.inf, math.inf, len(theirs))
    assert found.low <= 0 <= found.high
    assert math.isnan(found.mean) == (not theirs)


@settings(deadline=None)
@given(scores, scores)
def test_a_difference_turned_round_is_its_mirror(ours: dict[int, float], theirs: dict[int, float]) -> None:
    one, other = difference(ours, theirs), difference(theirs, ours)
    assert (one.low, one.high, one.n) == pytest.approx((-other.high, -other.low, other.n))


def test_bold_are_the_best_and_whatever_noise_cannot_tell_from_it() -> None:
    board = {
        "best": {0: 52.0, 1: 52.4, 2: 51.8},
        "as good": {0: 52.1, 1: 51.9, 2: 51.9},
        "worse": {0: 50.0, 1: 50.4, 2: 49.8},
        "unsteady": {0: 55.0, 1: 46.0, 2: 50.0},
        "two seeds": {0: 90.0, 1: 91.0},
        "one seed": {0: 90.0},
        "n/a": {},
    }
    assert best(board) == {"best", "as good"}
    assert best({name: board[name] for name in ("two seeds", "one seed", "n/a")}) == best({}) == set()


def test_the_worst_row_never_ties_for_being_unsteady() -> None:
    """As seen: 57.53 +- 14.48, the worst, was bold, and 80.40, near the best, was not."""
    board = {
        f"row {i}": {seed: 80 + 0.7 * i + 0.3 * seed + shift for seed, shift in enumerate(shifts)}
        for i, shifts in enumerate(((0.3, -0.4, 0.1), (-0.5, 0.2, 0.3), (0.4, 0.1, -0.5), (0.0, -0.3, 0.3)))
    }
    board["worst"] = {0: 41.0, 1: 62.5, 2: 69.1}
    found = best(board)
    assert "row 3" in found
    assert "row 2" in found
    assert "worst" not in found
    alike = tied(board, dict.fromkeys(board, noise(board)))
    assert alike["worst"] == []
    assert "row 0" not in alike["row 3"]  # 2.1 apart, with a noise of 0.4: three seeds have the power


def test_few_shot_zeros_do_not_tie_with_what_is_above_them() -> None:
    board = {"zero": dict.fromkeys(range(3), 0.0), "too": dict.fromkeys(range(3), 0.0)}
    board["best"] = {0: 7.0, 1: 7.9, 2: 8.0}
    board["near"] = {0: 7.1, 1: 7.5, 2: 7.6}
    assert best(board) == {"best", "near"}


@pytest.mark.parametrize(("rows", "seeds"), [(2, 3), (4, 3), (12, 3), (12, 5)])
def test_equal_rows_are_rarely_kept_apart_and_better_ones_often(rows: int, seeds: int) -> None:
    rng = np.random.default_rng(0)
    false = found = 0
    for _ in range(300):
        table = rng.normal(size=(rows, seeds)) + rng.normal(size=seeds)  # what a seed shares is no noise
        for gap in (0, 4):
            board = {str(i): dict(enumerate(own + (gap if i == 0 else 0))) for i, own in enumerate(table)}
            apart = "1" not in tied(board, dict.fromkeys(board, noise(board)))["0"]
            false, found = false + (apart and not gap), found + (apart and gap > 0)
    assert false / 300 < 0.1
    assert found / 300 > (0.6 if rows == 2 else 0.8)


def test_two_rows_are_kept_apart_by_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    for gap in (0.5, 1.0, 2.0, 4.0, 8.0):
        one, other = rng.normal(size=4) + gap, rng.normal(size=4)
        board = {"one": dict(enumerate(one)), "other": dict(enumerate(other))}
        apart = not tied(board, dict.fromkeys(board, noise(board)))["one"]
        assert apart == (stats.ttest_rel(one, other).pvalue < 0.05)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), scores, max_size=6), st.randoms(use_true_random=False))
def test_bold_does_not_depend_on_order_and_has_the_best(
    board: dict[str, dict[int, float]], random: Random
) -> None:
    found = best(board)
    several = {key for key, values in board.items() if len(values) >= FEWEST_SEEDS}
    assert found <= several
    assert bool(found) == bool(several)
    steady = {key: {seed: float(round(v)) for seed, v in own.items()} for key, own in board.items()}
    turned = dict(random.sample(list(steady.items()), len(steady)))
    assert noise(turned).variance == pytest.approx(noise(steady).variance, abs=1e-9)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), scores, max_size=6))
def test_ties_are_mutual(board: dict[str, dict[int, float]]) -> None:
    found = tied(board, dict.fromkeys(board, noise(board)))
    assert set(found) == {key for key, seeds in board.items() if len(seeds) >= FEWEST_SEEDS}
    for one, others in found.items():
        assert one not in others
        for other in others:
            assert one in found[other]
