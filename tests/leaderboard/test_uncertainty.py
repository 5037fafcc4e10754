"""Intervals over seeds and test images, and methods across data sets."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_factory import finish, make_cell, make_grid
from scipy import stats

from bench.errors import BenchError
from bench.leaderboard import bootstrap, friedman
from bench.leaderboard.bootstrap import interval
from bench.leaderboard.entries import entry as bare_entry
from bench.leaderboard.friedman import across, rank
from bench.leaderboard.leagues import ranked
from bench.records import Results
from bench.report.rank_figure import caption, critical_difference
from bench.report.recipe_page import render_recipe


# -- bootstrap ------------------------------------------------------------------------------------
def test_over_images_alone_it_is_the_binomial_interval() -> None:
    hits = np.arange(2000) < 1200
    found = interval(hits[None])
    assert found is not None
    reach = 100 * 1.96 * math.sqrt(0.6 * 0.4 / 2000)
    assert (found.mean, found.seeds, found.images) == (pytest.approx(60), 1, 2000)
    assert (found.low, found.high) == pytest.approx((60 - reach, 60 + reach), abs=0.25)
    reference = stats.bootstrap((hits,), np.mean, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((100 * reference.low, 100 * reference.high), abs=0.25)


def test_over_seeds_it_has_the_spread_of_their_mean() -> None:
    accuracies = np.array([500, 520, 540, 560, 580, 600])
    hits = np.repeat(accuracies[:, None] / 1000, 1000, axis=1)  # images that are all alike
    found = interval(hits)
    assert found is not None
    low, high = stats.t.interval(0.95, 5, 55, (accuracies / 10).std(ddof=1) / math.sqrt(6))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.4)


def test_over_both_it_covers_the_truth() -> None:
    """Models and images drawn again: of 120 intervals about 95 % have what all models have on all images."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(120):
        model, image = rng.normal(0, 0.3, (8, 1)), rng.normal(0, 1, (1, 400))
        hits = model + image + rng.normal(0, 1, (8, 400)) > 0  # one half, by symmetry
        found = interval(hits)
        assert found is not None
        covered += found.low <= 50 <= found.high
    assert 0.88 <= covered / 120 <= 1


def test_images_that_all_seeds_share_are_no_new_images() -> None:
    """Ten seeds that agree on every image are as unsure of other images as one."""
    hits = np.arange(1000) % 3 > 0
    one, ten = interval(hits[None]), interval(np.repeat(hits[None], 10, axis=0))
    assert one is not None
    assert ten is not None
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(2, 50), st.integers(0, 2**32 - 1))
def test_an_interval_holds_its_mean_and_turns_with_the_sign(seeds: int, images: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-1, 2, (seeds, images))
    found, turned = interval(values), interval(-values)
    assert found is not None
    assert turned is not None
    assert found.mean == pytest.approx(100 * values.mean(), abs=1e-4)
    assert found.low - 25 <= found.mean <= found.high + 25
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), abs=1e-3)


def test_the_same_values_have_the_same_interval() -> None:
    hits = np.random.default_rng(0).random((3, 500)) < 0.7
    first = interval(hits)
    bootstrap._weights.cache_clear()
    assert interval(hits) == first
    assert interval(np.empty((0, 5))) is None


def test_a_recipe_s_table_has_it_as_a_column_to_choose(tmp_path: Path) -> None:
    cells = [("ce", make_cell("ce", seed)) for seed in (0, 1, 2)] + [("crt", make_cell("crt"))]
    for _, cell in cells:
        finish(tmp_path, cell)
    finish(tmp_path, cells[-1][1], files={})  # kept no scores
    make_grid(tmp_path, "made", cells)
    render_recipe(Results(tmp_path), "made", tmp_path)
    page = (tmp_path / "made.html").read_text()
    rows = [row for row in page.split("<tr>") if "<td" in row]
    hits = bootstrap.hits(Results(tmp_path)[cell.run_id] for _, cell in cells[:3])
    assert hits is not None
    assert hits.shape == (3, 400)
    found = interval(hits)
    assert found is not None
    assert f">{found.low:.2f} to {found.high:.2f}<" in rows[0]
    assert 'data-name="interval" data-visible="false"' in page
    assert bootstrap.hits([Results(tmp_path)[cells[-1][1].run_id]]) is None
    assert " to " not in rows[1]
    assert "95 % interval" not in (tmp_path / "made.md").read_text()


# -- across data sets -----------------------------------------------------------------------------
@pytest.mark.parametrize(("methods", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_has_demsar_s_quantiles(methods: int, q: float) -> None:
    """Table 5 a of Demšar (JMLR 2006)."""
    scores = np.random.default_rng(0).normal(size=(14, methods))
    found = rank(scores, tuple("abcdefghij"[:methods]))
    assert found.critical == pytest.approx(q * math.sqrt(methods * (methods + 1) / (6 * 14)), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=3, max_size=9))
def test_ranks_and_friedman_s_test_are_scipy_s(rows: list[list[int]]) -> None:
    scores = np.array(rows, dtype=float)
    found = rank(scores, tuple("abcd"))
    means = {m: float(r) for m, r in zip("abcd", stats.rankdata(-scores, axis=1).mean(axis=0), strict=True)}
    assert dict(zip(found.methods, found.ranks, strict=True)) == pytest.approx(means)
    assert list(found.ranks) == sorted(found.ranks)
    if len(set(map(tuple, scores.T))) > 1:
        assert found.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)


def entry(dataset: str, factor: float, method: str, accuracy: float | None, **more: object) -> dict:
    fields = {"dataset": dataset, "imbalance_factor": factor, "method": method, "accuracy": accuracy}
    protocol = {"backbone": "r32"}
    bare = bare_entry(kind="published", **protocol, **fields)
    return bare | more


def test_the_methods_that_meet_everywhere_are_ranked() -> None:
    rows = []
    for shift, dataset in enumerate(("a", "b", "c", "d")):
        rows += [entry(dataset, 10, method, 50 - 5 * i - shift) for i, method in enumerate("pqrs")]
        rows.append(entry(dataset, 10, "p", 0, backbone="other"))  # a league of its own, less full
    rows.append(entry("e", 10, "z", 99))
    rows.append(entry("a", 10, "p", 0, control="no_contrast"))  # the method without a part is another
    found = across(ranked(rows))
    assert found is not None
    assert (found.methods, found.ranks, found.leagues) == (("p", "q", "r", "s"), (1, 2, 3, 4), 4)
    assert across(ranked(rows[:10])) is None  # two data sets


def test_equal_methods_are_alike() -> None:
    found = rank(np.full((5, 4), 60.0), tuple("abcd"))
    assert (found.ranks, found.p, found.alike) == ((2.5,) * 4, 1.0, [(0, 3)])


def test_the_diagram_names_all_and_joins_what_is_alike() -> None:
    ranking = friedman.Ranking(("a", "b", "c"), (1.0, 1.2, 3.0), 9, 0.001, 0.8)
    assert ranking.alike == [(0, 1)]
    drawn = critical_difference(ranking, {"a": "A & co"}, caption(ranking))
    root = ElementTree.fromstring(drawn)
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert {"A & co 1.00", "b 1.20", "3.00 c", "critical difference 0.80"} <= set(texts)
    bars = [line for line in root.iter() if line.get("stroke-width") == "2.5"]
    assert len(bars) == 1
    assert "9 data sets" in root.get("aria-label", "")


# -- two methods ----------------------------------------------------------------------------------
def runs_of(results: Path, method: str, seeds: range, **changes: object) -> list:
    return [Results(results)[finish(results, make_cell(method, s), **changes).run_id] for s in seeds]


def test_two_methods_are_compared_by_their_common_seeds_and_images(tmp_path: Path) -> None:
    ours, theirs = runs_of(tmp_path, "balanced_softmax", range(4)), runs_of(tmp_path, "ce", range(1, 6))
    table = bootstrap.compared(ours, theirs).set_index("vary")
    gaps = [ours[s].row["accuracy"] - theirs[s - 1].row["accuracy"] for s in (1, 2, 3)]
    assert table["difference"].tolist() == pytest.approx([np.mean(gaps)] * 3)
    assert table["seeds"].tolist() == [3, 3, 3]
    assert table["wins"].tolist() == [sum(gap > 0 for gap in gaps)] * 3
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert table.loc["seeds", ["low", "high"]].tolist() == pytest.approx([low, high])
    values = [ours[s].hits.astype(float) - theirs[s - 1].hits for s in (1, 2, 3)]
    found = interval(np.stack(values))
    assert found is not None
    assert table.loc["seeds and images", ["low", "high", "images"]].tolist() == pytest.approx(
        [found.low, found.high, 400]
    )
    images, both = (
        table.loc[name, "high"] - table.loc[name, "low"] for name in ("images", "seeds and images")
    )
    assert both > images > 0


def test_what_is_not_known_of_two_methods_is_na(tmp_path: Path) -> None:
    ours, theirs = runs_of(tmp_path, "crt", range(1)), runs_of(tmp_path, "ce", range(1))
    table = bootstrap.compared(ours, theirs).set_index("vary")
    assert table["low"].isna().tolist() == [True, False, True]  # one seed says nothing of seeds
    bare = runs_of(tmp_path, "crt", range(3), files={})
    table = bootstrap.compared(bare, runs_of(tmp_path, "ce", range(3))).set_index("vary")
    assert table["low"].isna().tolist() == [False, True, True]
    with pytest.raises(BenchError, match="no seed in common"):
        bootstrap.compared(ours, runs_of(tmp_path, "ce", range(1, 3)))
    data = theirs[0].record["data"]
    other = data | {"fingerprint": data["fingerprint"] | {"test": "another"}}
    with pytest.raises(BenchError, match="different images"):
        bootstrap.compared(ours, runs_of(tmp_path, "ldam_drw", range(1), data=other))
