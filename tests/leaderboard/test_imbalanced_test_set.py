"""Where the test set is imbalanced, balanced accuracy ranks, as the tables show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records_factory import DIGITS, finish, make_cell, make_grid

from bench.leaderboard import gather
from bench.leaderboard.lines import marks
from bench.records import Results
from bench.report.index_page import board_table, render_index
from bench.report.recipe_page import render_recipe
from bench.rundir import RunDir

#: Class 0 has most test images: always to say 0 has 82 % of the images and a tenth of the classes.
TESTS = [410, *[10] * 9]


def imbalanced(results: Path, method: str, seed: int, per_class: list[float]) -> RunDir:
    """A run on a test set with a tail of its own, with these class accuracies."""
    cell = make_cell(method, seed, dataset=DIGITS)
    record = finish(results, cell).read_record()
    metrics: dict[str, Any] = record["metrics"] | {
        "accuracy": float(np.average(per_class, weights=TESTS)),
        "balanced": float(np.mean(per_class)),
        "per_class": per_class,
    }
    return finish(results, cell, metrics=metrics, data=record["data"] | {"test_counts": TESTS})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    cells = []
    for seed in (0, 1, 2):
        head = imbalanced(tmp_path, "ce", seed, [99.0 + 0.1 * seed, *[20.0] * 9])
        tail = imbalanced(tmp_path, "balanced_softmax", seed, [60.0 + 0.1 * seed, *[60.0] * 9])
        cells += [("ce", head.read_cell()), ("balanced_softmax", tail.read_cell())]
    make_grid(tmp_path, "made", cells)
    return tmp_path


def test_balanced_accuracy_ranks_and_is_bold(results: Path) -> None:
    board = gather(Results(results))
    (tab,) = [tab for tab in board.tabs if tab.measured]
    ours = [line for line in tab.lines if line.kind == "measured"]
    assert [(line.entry["method"], line.rank) for line in ours] == [("balanced_softmax", 1), ("ce", 2)]
    assert ours[0].entry["accuracy"] < ours[1].entry["accuracy"]
    assert {line.entry["headline"] for line in ours} == {"balanced"}
    assert marks(ours).bold["balanced"] == {ours[0].key}


def test_tables_put_it_first_and_say_why(results: Path) -> None:
    board = gather(Results(results))
    (tab,) = [tab for tab in board.tabs if tab.measured]
    table = board_table(tab, tab.lines)
    names = [column.name for column in table.columns]
    head = next(column for column in table.columns if column.name == "balanced")
    assert names.index("balanced") < names.index("few")
    assert "the test set is imbalanced" in head.head
    assert head.headline
    assert not head.hidden
    render_recipe(Results(results), "made", results)
    text = (results / "made.md").read_text()
    columns = next(line for line in text.splitlines() if line.startswith("| method")).split("|")
    positions = [
        next(i for i, c in enumerate(columns) if c.strip().startswith(n)) for n in ("balanced", "many")
    ]
    assert positions[0] + 1 == positions[1]
    row = next(line for line in text.splitlines() if "balanced\\_softmax |" in line).split("|")
    assert row[positions[0]].strip() == "**60.01 ± 0.01**"


def test_a_balanced_test_set_keeps_accuracy(tmp_path: Path) -> None:
    finish(tmp_path, make_cell("ce", dataset=DIGITS))
    board = gather(Results(tmp_path))
    (tab,) = [tab for tab in board.tabs if tab.measured]
    table = board_table(tab, tab.lines)
    (headline,) = [column for column in table.columns if column.headline]
    assert (headline.name, headline.head) == ("accuracy", "measured (last epoch)")
    assert "the test set is imbalanced" not in render_index(board, tmp_path)[0].read_text()
