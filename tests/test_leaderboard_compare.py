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
from bench.leaderboard.compare import tied

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
    assert not found.includes_zero


def test_what_the_seeds_share_is_no_noise() -> None:
    seeds = {0: 40.0, 1: 60.0, 2: 50.0}
    better = {seed: value + 1 + 0.01 * seed for seed, value in seeds.items()}
    assert difference(better, seeds).low > 0.9


@pytest.mark.parametrize("theirs", [{0: 10.0}, {}])
def test_one_common_seed_or_none_says_nothing(theirs: dict[int, float]) -> None:
    found = difference({0: 50.0, 1: 51.0}, theirs)
    assert (found.low, found.high, found.n) == (-math.inf, math.inf, len(theirs))
    assert found.includes_zero
    assert math.isnan(found.mean) == (not theirs)


@settings(deadline=None)
@given(scores, scores)
def test_a_difference_turned_round_is_its_mirror(ours: dict[int, float], theirs: dict[int, float]) -> None:
    one, other = difference(ours, theirs), difference(theirs, ours)
    assert (one.low, one.high, one.n) == pytest.approx((-other.high, -other.low, other.n))


def test_bold_are_the_best_and_whatever_noise_cannot_tell_from_it() -> None:
    board = {
        "best": {0: 52.0, 1: 52.4, 2: 51.8},
        "noisy": {0: 55.0, 1: 46.0, 2: 54.0},
        "worse": {0: 50.0, 1: 50.4, 2: 49.8},
        "one seed": {0: 90.0},
        "n/a": {},
    }
    assert best(board) == {"best", "noisy"}
    assert best({"n/a": {}, "one seed": {0: 90.0}}) == best({}) == set()


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), scores, max_size=6), st.randoms(use_true_random=False))
def test_bold_does_not_depend_on_order_and_has_the_best(
    board: dict[str, dict[int, float]], random: Random
) -> None:
    found = best(board)
    assert found == best(dict(random.sample(list(board.items()), len(board))))
    several = {key for key, values in board.items() if len(values) > 1}
    assert found <= several
    assert bool(found) == bool(several)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), scores, max_size=6))
def test_all_pairs_at_once_are_told_apart_as_one_by_one(board: dict[str, dict[int, float]]) -> None:
    found = tied(board)
    assert set(found) == {key for key, seeds in board.items() if len(seeds) > 1}
    for one, others in found.items():
        for other in found.keys() - {one}:
            gap = difference(board[one], board[other])
            if abs(abs(gap.mean) - (gap.high - gap.mean)) > 1e-9:  # but for rounding at the border
                assert (other in others) == gap.includes_zero
