"""Controls on the leaderboard: beneath their method, with what it adds, and never a method of their own."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from leaderboard_fakes import board_of, literature, run
from records_factory import finish, make_cell

from bench.gridfile import Grid, write_grid
from bench.leaderboard.board import Board
from bench.leaderboard.lines import Line
from bench.records import Results
from bench.report.index_page import board_table
from bench.report.recipe_page import render_recipe
from bench.result import Result

#: Accuracies by seed of a method and of its control, and of a rival.
WHOLE, WITHOUT, RIVAL = (50.0, 51.0, 52.0), (48.5, 49.0, 50.5), (49.0, 49.5, 50.0)


def series(method: str, accuracies: Any, **changes: Any) -> list[Result]:
    return [run(method, seed, accuracy, **changes) for seed, accuracy in enumerate(accuracies)]


def grid(labels: dict[str, list[Result]], whole: str, controls: dict[str, str]) -> Grid:
    """Return what a recipe asked for: runs by label, and which labels are the controls of one of them."""
    cells = tuple((label, one.cell) for label, runs in labels.items() for one in runs)
    named = {
        one.run_id: {name: labels[label][seed].run_id for name, label in controls.items()}
        for seed, one in enumerate(labels[whole])
    }
    return Grid("r", "A recipe", "", cells, named)


def line(board: Board, title: str) -> Line:
    (found,) = [line for line in board.lines if line.entry["title"] == title]
    return found


def rows(board: Board) -> list[dict[str, str]]:
    """Return the opening league's rows as they are shown."""
    tab = board.opening
    table = board_table(tab, tab.leagues[tab.opening])
    heads = [column.name for column in table.columns]
    shown = [
        " ".join([value.text, *(note for _, note in value.notes)]) for row in table.rows for value in row
    ]
    width = len(heads)
    return [dict(zip(heads, shown[i : i + width], strict=True)) for i in range(0, len(shown), width)]


@pytest.fixture
def labels() -> dict[str, list[Result]]:
    return {"rsg": series("rsg", WHOLE), "ce": series("ce", RIVAL), "rsg-no_rsg": series("ldam_drw", WITHOUT)}


def test_a_control_stands_beneath_its_method_with_the_paired_difference(
    tmp_path: Path, labels: dict[str, list[Result]]
) -> None:
    methods = "method,title,aliases,stages\nldam_drw,LDAM-DRW,,\n"
    known = literature(tmp_path, {"method": "ldam_drw", "value": "42"}, methods=methods)
    asked = grid(labels, "rsg", {"no_rsg": "rsg-no_rsg"})
    board = board_of([one for runs in labels.values() for one in runs], known, asked)
    (name,) = line(board, "RSG").controls
    control = line(board, "RSG").controls[name]
    assert (name, control.entry["accuracy"]) == ("no_rsg", pytest.approx(sum(WITHOUT) / 3))
    difference = line(board, "RSG").adds(control)
    assert (difference.mean, difference.n) == (pytest.approx(5 / 3), 3)

    shown = rows(board)
    assert [row["rank"] for row in shown] == ["1", "", "2", "1"]  # a control ranks nothing
    assert [row["method"].split()[0] for row in shown] == ["RSG", "↳", "CE", "LDAM-DRW"]
    half = 4.302653 * math.sqrt(1 / 12) / math.sqrt(3)  # of 1.5, 2, 1.5: t at 2 degrees of freedom
    low, high = 5 / 3 - half, 5 / 3 + half
    assert shown[1]["gap"] == f"RSG adds +1.67 (+{low:.2f} to +{high:.2f}, n = 3)"
    assert shown[1]["published"] == ""
    assert shown[3]["accuracy"] == ""  # its published number is not the control's


def test_a_control_enters_neither_verdicts_nor_ranks(tmp_path: Path, labels: dict[str, list[Result]]) -> None:
    known = literature(tmp_path, {"method": "ce"})
    runs = [one for runs in labels.values() for one in runs]
    board = board_of(runs, known, grid(labels, "rsg", {"no_rsg": "rsg-no_rsg"}))
    (entry,) = [entry for entry in board.entries if entry["method"] == "ldam_drw"]
    assert (entry["control"], entry["rank"], entry["literature"]) == ("no_rsg", None, None)
    assert {pair["verdict"] for pair in board.pairs[entry["key"]]} == {"no published number"}
    assert "ldam_drw" not in {line.entry["method"] for line in board.lines}
    pages = {line.page for line in board.opening.measured_lines}
    assert len(pages) == 3  # but it has a page


def test_a_control_that_a_recipe_wants_for_itself_has_its_own_row_too(
    labels: dict[str, list[Result]],
) -> None:
    labels["ldam_drw"] = labels.pop("rsg-no_rsg")
    runs = [one for runs in labels.values() for one in runs]
    board = board_of(runs, [], grid(labels, "rsg", {"no_rsg": "ldam_drw"}))
    assert [row["method"] for row in rows(board)] == ["RSG", "↳ no rsg", "CE", "LDAM_DRW"]
    assert [row["rank"] for row in rows(board)] == ["1", "", "2", "3"]


def test_one_common_seed_has_a_difference_and_no_interval(labels: dict[str, list[Result]]) -> None:
    runs = [*labels["rsg"], labels["rsg-no_rsg"][1]]
    board = board_of(runs, [], grid(labels, "rsg", {"no_rsg": "rsg-no_rsg"}))
    assert rows(board)[1]["gap"] == "RSG adds +2.00 (n = 1)"


def test_a_control_of_its_own_class_is_known_without_a_grid(tmp_path: Path) -> None:
    whole = series("bcl", WHOLE, params={"scale": 20.0})
    without = series("bcl", WITHOUT, params={"scale": 20.0, "contrast_weight": 0.0})
    other = series("bcl", RIVAL, params={"scale": 30.0})
    board = board_of([*whole, *without, *other], literature(tmp_path))
    shown = rows(board)
    assert [row["method"] for row in shown] == ["BCL scale 20", "↳ no contrast", "BCL scale 30"]
    assert shown[1]["gap"].startswith("BCL adds +1.67")


def test_without_two_parts_is_the_control_of_both(tmp_path: Path) -> None:
    whole = series("bccl", WHOLE)
    both = series("bccl", WITHOUT, params={"contrast_weight": 0.0, "centroid_weight": 0.0})
    board = board_of([*whole, *both], literature(tmp_path))
    assert [row["method"] for row in rows(board)] == ["BCCL", "↳ no contrast"]


def test_a_control_without_its_method_has_a_row_like_any_other(tmp_path: Path) -> None:
    without = series("bcl", WITHOUT, params={"contrast_weight": 0.0})
    board = board_of(without, literature(tmp_path))
    assert [row["rank"] for row in rows(board) if row["accuracy"]] == ["1"]
    assert board.pairs[board.lines[0].key][0]["verdict"] == "no published number"


def test_in_a_recipe_s_table_a_control_follows_its_method(tmp_path: Path) -> None:
    labels = {
        "bcl": [make_cell("bcl", seed) for seed in range(3)],
        "ce": [make_cell("ce", seed) for seed in range(3)],
        "bcl-no_contrast": [make_cell("bcl", seed, params={"contrast_weight": 0.0}) for seed in range(3)],
    }
    cells = [
        {"run_id": cell.run_id, "label": label, "cell": cell.model_dump(mode="json")}
        | (
            {"controls": {"no_contrast": labels["bcl-no_contrast"][cell.seed].run_id}}
            if label == "bcl"
            else {}
        )
        for label, asked in labels.items()
        for cell in asked
    ]
    for asked in labels.values():
        for cell in asked:
            finish(tmp_path / "results", cell)
    grid = {"recipe": "r", "title": "A recipe", "notes": "", "cells": cells}
    write_grid(tmp_path / "results", "r", grid)
    render_recipe(Results(tmp_path / "results"), "r", tmp_path)
    table = Results(tmp_path / "results").table()
    whole, without = (
        table[table.params.str.contains("contrast_weight") == control].query("method == 'bcl'")
        for control in (False, True)
    )
    added = whole.accuracy.mean() - without.accuracy.mean()
    lines = [line for line in (tmp_path / "r.md").read_text().splitlines() if line.startswith("| ")]
    shown = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:5]]
    assert [name.partition("<br>")[0] for name in shown] == ["bcl", "↳ no contrast", "Cross-entropy"]
    assert f"bcl adds {added:+.2f}".replace("-", "−") in shown[1]
    assert "n = 3" in shown[1]
    page = (tmp_path / "r.html").read_text()
    (control,) = re.findall(r'<tr class="control">(.*?)</tr>', page)
    assert "strong" not in control
    assert "↳" not in (tmp_path / "r.tex").read_text()
