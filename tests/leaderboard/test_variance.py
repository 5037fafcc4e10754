"""The parts of a spread: two-way components against what was put in, and the table of a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_factory import DIGITS, finish, make_cell, make_grid

from bench.leaderboard.variance import components
from bench.records import Results
from bench.report.recipe_page import render_recipe


def scores_of(table: np.ndarray) -> dict[tuple[int, int], float]:
    return {index: float(value) for index, value in np.ndenumerate(table)}


def test_components_are_those_that_were_put_in() -> None:
    rng = np.random.default_rng(0)
    a, b = 400, 300
    table = 60 + 2 * rng.normal(size=(a, 1)) + rng.normal(size=(1, b)) + 0.5 * rng.normal(size=(a, b))
    found = components(scores_of(table))
    assert found is not None
    assert (found.splits, found.seeds) == (a, b)
    assert [found.subset, found.initialisation, found.rest] == pytest.approx([2, 1, 0.5], rel=0.1)
    assert found.share_of_subset == pytest.approx(4 / 5.25, rel=0.1)
    assert found.mean == pytest.approx(table.mean())


def test_components_by_hand() -> None:
    # of [[0, 2], [2, 4]] the mean squares of rows and columns are 4, of the rest 0: variances of 4 / 2
    found = components({(0, 0): 0, (0, 1): 2, (1, 0): 2, (1, 1): 4})
    assert found is not None
    assert (found.mean, found.rest) == (2, 0)
    assert found.subset == found.initialisation == pytest.approx(2**0.5)


@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=2, max_size=5))
def test_nothing_is_negative_and_names_do_not_matter(rows: list[list[float]]) -> None:
    table = np.array(rows)
    found, turned = components(scores_of(table)), components(scores_of(table[::-1, ::-1]))
    assert found is not None
    assert turned is not None
    assert min(found.subset, found.initialisation, found.rest) >= 0
    assert 0 <= found.share_of_subset <= 1
    assert [found.subset, found.rest] == pytest.approx([turned.subset, turned.rest], abs=1e-6)


def test_one_split_or_one_seed_has_no_parts() -> None:
    assert components({}) is None
    assert components({(0, 0): 1.0, (0, 1): 2.0}) is None
    assert components({(0, 0): 1.0, (1, 0): 2.0}) is None
    # an unfinished split waits
    assert components({(0, 0): 1.0, (0, 1): 2.0, (1, 0): 3.0}) is None


def test_a_grid_of_splits_and_seeds_shows_its_parts(tmp_path: Path) -> None:
    cells = []
    for split in (0, 1, 2):
        dataset = DIGITS.model_copy(update={"split_seed": split})
        for seed in (0, 1):
            parent = make_cell("ce", seed, dataset=dataset, imbalance_factor=20.0)
            child = make_cell("crt", seed, dataset=dataset, imbalance_factor=20.0, parent=parent)
            cells += [("ce", parent), ("crt", child)]
    for _, cell in cells:
        finish(tmp_path, cell, fingerprint=f"{cell.dataset.split_seed:016d}")
    make_grid(tmp_path, "splits", cells)
    render_recipe(Results(tmp_path), "splits", tmp_path)
    text = (tmp_path / "splits.md").read_text()
    part = text.partition("## Variance components")[2].partition("## How")[0]
    assert [line.split("|")[1:3] for line in part.splitlines() if " x " in line] == [
        [" Cross-entropy<br>ce ", " 3 x 2 "],
        [" cRT<br>crt ", " 3 x 2 "],
    ]
    assert "imbalance factor 20, split 2" in text
    assert "different splits" not in text  # each split has a table of its own
    assert 'id="digits-if20-split-2"' in (tmp_path / "splits.html").read_text()


def test_a_grid_of_seeds_alone_has_no_such_part(tmp_path: Path) -> None:
    cells = [("ce", make_cell("ce", seed)) for seed in (0, 1)]
    for _, cell in cells:
        finish(tmp_path, cell)
    make_grid(tmp_path, "seeds", cells)
    render_recipe(Results(tmp_path), "seeds", tmp_path)
    assert "spread comes from" not in (tmp_path / "seeds.md").read_text()
