"""What becomes of a search: trials choose, winners are trained, and pages tell it; no test image decides."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from commands import Bench
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT
from records_factory import fail, finish

from bench.cards import card_of
from bench.errors import BenchError
from bench.gridfile import write_grid
from bench.leaderboard.effort import comparisons
from bench.recipe import Recipe, grid_file, load
from bench.records import Results
from bench.report.effort import spaced
from bench.report.recipe_page import render_recipe
from bench.rundir import RunDir
from bench.search.outcome import outcome, progress
from bench.search.resolve import resolve

RECIPE = """\
# Made up.
methods:
  ce: {}
  crt: {from: ce, protocol: {epochs: 1}}
grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar, seed: [0, 1, 2]}
protocol: {epochs: 1, batch_size: 64}
search:
  budgets: [1, 2, 4]
  held_out: 20
  space:
    protocol.optimizer.lr: {log: 10}
"""

#: Held-out scores of the four trials: a tie of the second and fourth, the third is worse.
SCORES = {"ce": (50.0, 60.0, 40.0, 60.0), "crt": (70.0, 65.0, 69.0, 72.0)}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "made_up.yaml").write_text(RECIPE)
    return load(tmp_path / "made_up.yaml")


def end(results: Path, cell, balanced: float, accuracy: float = 1.0) -> None:
    finish(results, cell, metrics={"accuracy": accuracy, "balanced": balanced, "epoch": 0})


def try_all(recipe: Recipe, results: Path, but: str = "") -> None:
    """Write the records of all trials, one left out."""
    for point in recipe.points:
        label, _, draw = point.label.partition("-trial")
        if point.label != but:
            end(results, point.cell, SCORES[label][int(draw) - 1])


def won(recipe: Recipe, results: Path) -> dict[str, dict[int, int]]:
    found = resolve(recipe, Results(results))
    return {one.label: dict(one.winners) for one in found.search.methods}


def progress_of(recipe: Recipe, results: Path) -> str:
    found = resolve(recipe, Results(results))
    cells = [point.cell for point in found.points]
    return progress(found.search.record(), cells, Results(results))


def test_the_best_trial_of_each_budget_wins_and_the_first_of_equals(recipe: Recipe, tmp_path: Path) -> None:
    try_all(recipe, tmp_path)
    assert won(recipe, tmp_path) == {"ce": {1: 1, 2: 2, 4: 2}, "crt": {1: 1, 2: 1, 4: 4}}
    found = resolve(recipe, Results(tmp_path))
    finals = {point.label for point in found.points if point.phase == "final"}
    assert finals == {"ce-k1", "ce-k2+4", "crt-k1+2", "crt-k4"}
    for point in found.points:
        if point.label == "crt-k4":  # with what it starts from, as its trial did
            trial = recipe.search.methods[1].trials[3].cells[0]
            assert point.cell.parent.protocol == trial.parent.protocol
            assert point.cell.dataset.held_out is None
            assert point.cell.dataset.n_max == 120


def test_phases_are_reported_from_the_first_trial_to_the_last_winner(recipe: Recipe, tmp_path: Path) -> None:
    assert progress_of(recipe, tmp_path) == "search: 0 of 8; final: waits for search (at most 18 runs)"
    try_all(recipe, tmp_path, but="crt-trial3")
    waits = "search: 7 of 8; final: 0 of 6, 1 of 2 searches not over"
    assert progress_of(recipe, tmp_path) == waits
    assert won(recipe, tmp_path) == {"ce": {1: 1, 2: 2, 4: 2}, "crt": {}}
    grid = grid_file(recipe)  # as it was before any trial ended
    try_all(recipe, tmp_path)
    write_grid(tmp_path, "made_up", grid)
    (known,) = Results(tmp_path).grids.values()
    text = progress(known.search, [cell for _, cell in known.cells], Results(tmp_path))
    assert text == "search: 8 of 8; final: the next `run` trains the winners (at most 18 runs)"
    for point in resolve(recipe, Results(tmp_path)).points:
        if point.label == "ce-k1":
            end(tmp_path, point.cell, 1.0)
    assert progress_of(recipe, tmp_path) == "search: 8 of 8; final: 3 of 12"


def test_methods_of_two_tails_are_not_compared(tmp_path: Path) -> None:
    noisy = RECIPE.replace("seed:", "label_noise: [0.0, 0.2], seed:")
    (tmp_path / "noisy.yaml").write_text(noisy)
    recipe = load(tmp_path / "noisy.yaml")
    try_all(recipe, tmp_path)
    write_grid(tmp_path, "noisy", grid_file(resolve(recipe, Results(tmp_path))))
    found = comparisons(Results(tmp_path), Results(tmp_path).grids["noisy"])
    assert [one.dataset.tail for one in found] == ["standard", "label noise 0.2"]
    assert [[method.key for method in one.methods] for one in found] == [["ce", "crt"], ["ce", "crt"]]
    render_recipe(Results(tmp_path), "noisy", tmp_path)
    assert "Equal effort: digits, label noise 0.2, imbalance factor 20" in (tmp_path / "noisy.md").read_text()


def test_test_scores_change_no_winner(recipe: Recipe, tmp_path: Path) -> None:
    try_all(recipe, tmp_path)
    before = resolve(recipe, Results(tmp_path))
    for place, point in enumerate(before.points):
        if point.phase == "final":
            end(tmp_path, point.cell, balanced=100.0 - place, accuracy=100.0 - place)
    after = resolve(recipe, Results(tmp_path))
    assert after.points == before.points
    assert after.search.record() == before.search.record()
    final = next(point.cell for point in after.points if point.phase == "final")
    with pytest.raises(ValueError, match="not a trial, as it is evaluated on a test set"):
        outcome([final], Results(tmp_path))


def test_a_trial_that_failed_cannot_win_and_does_not_hold_the_others_up(
    recipe: Recipe, tmp_path: Path
) -> None:
    try_all(recipe, tmp_path, but="ce-trial2")
    point = next(point for point in recipe.points if point.label == "ce-trial2")
    fail(tmp_path, point.cell, "the test scores hold a NaN")
    # the second trial of cRT starts from it
    assert won(recipe, tmp_path) == {"ce": {1: 1, 2: 1, 4: 4}, "crt": {1: 1, 2: 1, 4: 4}}
    record = resolve(recipe, Results(tmp_path)).search.record()
    assert [trial.score for trial in record.methods[0].trials] == [50.0, None, 40.0, 60.0]
    assert progress_of(recipe, tmp_path).startswith("search: 7 of 8 (1 failed); final: 0 of")


def test_a_method_whose_trials_all_failed_has_no_winner_and_is_not_waited_for(
    recipe: Recipe, tmp_path: Path
) -> None:
    for point in recipe.points:
        if not point.label.startswith("crt"):
            end(tmp_path, point.cell, 50.0)
    for point in recipe.points:
        if point.label.startswith("crt"):
            fail(tmp_path, point.cell, "the test scores hold a NaN")
    assert progress_of(recipe, tmp_path) == "search: 4 of 8 (4 failed); final: 0 of 3"
    for point in recipe.points:
        fail(tmp_path, point.cell, "the test scores hold a NaN")
    text = progress_of(recipe, tmp_path)
    assert text == "search: 0 of 8 (8 failed); final: nothing to train, as all trials failed"


def test_several_seeds_of_a_trial_are_averaged(tmp_path: Path) -> None:
    (tmp_path / "seeds.yaml").write_text(RECIPE.replace("held_out: 20", "held_out: 20\n  seed: [0, 1]"))
    recipe = load(tmp_path / "seeds.yaml")
    for point in recipe.points:
        label, _, draw = point.label.partition("-trial")
        better = 30.0 if (draw, point.cell.seed) == ("3", 1) else 0.0
        end(tmp_path, point.cell, SCORES[label][int(draw) - 1] + better)
    assert won(recipe, tmp_path)["crt"] == {1: 1, 2: 1, 4: 3}  # (69 + 99) / 2


def test_the_grid_file_says_what_was_chosen_and_from_what(recipe: Recipe, tmp_path: Path) -> None:
    try_all(recipe, tmp_path)
    write_grid(tmp_path, "made_up", grid_file(resolve(recipe, Results(tmp_path))))
    grid = Results(tmp_path).grids["made_up"]
    crt = grid.search.methods[1]
    assert [trial.score for trial in crt.trials] == list(SCORES["crt"])
    assert [(one.budget, one.draw, len(one.runs)) for one in crt.winners] == [(1, 1, 3), (2, 1, 3), (4, 4, 3)]
    assert set(crt.trials[0].setting) == {"protocol.optimizer.lr", "ce: protocol.optimizer.lr"}
    assert {*grid.search.trial_runs, *grid.search.final_runs} == {cell.run_id for _, cell in grid.cells}


@pytest.mark.parametrize(
    "change",
    [
        lambda search: search["methods"][0]["winners"][0].update(draw=9),
        lambda search: search["methods"][0]["trials"][0].update(runs=["digits-if20-ce-s0-0000000000"]),
        lambda search: search["methods"][0].update(trials=[]),
        lambda search: search.pop("budgets"),
    ],
)
def test_a_damaged_grid_file_is_reported(recipe: Recipe, tmp_path: Path, change) -> None:
    try_all(recipe, tmp_path)
    write_grid(tmp_path, "made_up", grid_file(resolve(recipe, Results(tmp_path))))
    file = tmp_path / "grids" / "made_up.json"
    content = json.loads(file.read_text())
    change(content["search"])
    file.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"made_up\.json: .*run the recipe again"):
        Results(tmp_path).grids  # noqa: B018


# -- pages -------------------------------------------------------------------------------------------
@pytest.fixture
def page(recipe: Recipe, tmp_path: Path) -> tuple[str, str]:
    """The recipe's page after both phases, as Markdown and HTML: cRT is better by ten points."""
    results = tmp_path / "results"
    try_all(recipe, results)
    found = resolve(recipe, Results(results))
    for point in found.points:
        if point.phase == "final":
            better = 10.0 * (point.method_label == "crt") + 2.0 * ("4" in point.label)
            end(results, point.cell, 0.0, accuracy=70.0 + better + 0.1 * point.cell.seed)
    write_grid(results, "made_up", grid_file(found))
    render_recipe(Results(results), "made_up", tmp_path)
    assert (tmp_path / "made_up_effort_1.svg").is_file()
    return (tmp_path / "made_up.md").read_text(), (tmp_path / "made_up.html").read_text()


def test_nobody_wins_before_all_winners_are_trained(recipe: Recipe, tmp_path: Path) -> None:
    try_all(recipe, tmp_path)
    found = resolve(recipe, Results(tmp_path))
    for point in found.points:
        if point.label in ("ce-k1", "ce-k2+4", "crt-k1+2"):  # crt-k4 is still to train
            end(tmp_path, point.cell, 0.0, accuracy=70.0 + 0.1 * point.cell.seed)
    write_grid(tmp_path, "made_up", grid_file(found))
    (comparison,) = comparisons(Results(tmp_path), Results(tmp_path).grids["made_up"])
    assert comparison.best(2) == {"ce", "crt"}
    assert comparison.best(4) == set()
    for point in found.points:
        if point.label == "crt-k4" and point.cell.seed < 2:  # one of its seeds is still to train
            end(tmp_path, point.cell, 0.0, accuracy=70.0 + 0.1 * point.cell.seed)
    (comparison,) = comparisons(Results(tmp_path), Results(tmp_path).grids["made_up"])
    assert comparison.best(4) == set()


def test_nobody_wins_before_all_searches_are_over(recipe: Recipe, tmp_path: Path) -> None:
    try_all(recipe, tmp_path, but="crt-trial3")
    found = resolve(recipe, Results(tmp_path))
    for point in found.points:
        if point.phase == "final":
            end(tmp_path, point.cell, 0.0, accuracy=70.0 + 0.1 * point.cell.seed)
    write_grid(tmp_path, "made_up", grid_file(found))
    (comparison,) = comparisons(Results(tmp_path), Results(tmp_path).grids["made_up"])
    assert comparison.best(1) == set()


def test_the_page_says_who_wins_with_each_budget(page: tuple[str, str]) -> None:
    markdown, html = page
    assert "| method | k = 1 | k = 2 | k = 4 |" in markdown
    assert "| Cross-entropy<br>ce | 70.10 ± 0.10 | 72.10 ± 0.10 | 72.10 ± 0.10 |" in markdown
    assert "| cRT<br>crt | **80.10 ± 0.10** | **80.10 ± 0.10** | **82.10 ± 0.10** |" in markdown
    assert "best, with ties: k = 1 crt; k = 2 crt; k = 4 crt" in markdown
    assert "4 trials of every method" in markdown
    assert "Of what won with k trials, in percent: accuracy (last epoch):" in markdown
    assert "20 training images of each class, held out" in markdown
    for text in page:
        assert "Equal effort" in text
    assert html.count("<h2>Digits-LT, imbalance factor 20</h2>") == 1, "trials are in no table of results"
    assert "All trials" in html


def test_the_page_has_the_settings_and_the_expected_best(page: tuple[str, str], recipe: Recipe) -> None:
    markdown, _ = page
    rate = recipe.search.methods[0].trials[1].setting["protocol.optimizer.lr"]
    assert f"| Cross-entropy<br>ce | 2 | 2 | 60.00 | optimizer.lr {rate:g} |" in markdown
    expected = (
        52.5,
        (5 * 60 + 50) / 6,
        60.0,
        60.0,
    )  # of 40, 50, 60, 60: of all sets of k the mean of the best
    for k, value in enumerate(expected, start=1):
        assert f"\n| {k} | {value:.2f} |" in markdown


@given(st.lists(st.floats(0, 180), min_size=1, max_size=25).map(sorted))
def test_names_of_lines_stand_apart_and_in_order(ends: list[float]) -> None:
    names = spaced(ends, 11, 8)
    assert names[0] >= 8
    assert all(after - before >= 11 - 1e-9 for before, after in pairwise(names))
    if ends[0] >= 8 and all(after - before >= 11 for before, after in pairwise(ends)):
        assert names == ends


def test_a_search_that_is_not_over_is_reported(recipe: Recipe, tmp_path: Path) -> None:
    try_all(recipe, tmp_path, but="crt-trial3")
    write_grid(tmp_path, "made_up", grid_file(resolve(recipe, Results(tmp_path))))
    render_recipe(Results(tmp_path), "made_up", tmp_path)
    text = (tmp_path / "made_up.md").read_text()
    assert "crt: 3 of 4 trials have ended" in text
    assert "| Cross-entropy<br>ce | n/a<br>0 of 3 seeds |" in text
    assert "| k | ce |\n" in text


def test_trials_that_changed_since_are_reported(recipe: Recipe, tmp_path: Path) -> None:
    try_all(recipe, tmp_path)
    write_grid(tmp_path, "made_up", grid_file(resolve(recipe, Results(tmp_path))))
    grid = Results(tmp_path).grids["made_up"]
    (comparison,) = comparisons(Results(tmp_path), grid)
    assert not any(one.outdated for one in comparison.methods)
    end(tmp_path, recipe.points[2].cell, 99.0)
    (comparison,) = comparisons(Results(tmp_path), grid)
    assert [one.outdated for one in comparison.methods] == [True, False]


# -- commands ----------------------------------------------------------------------------------------
def test_run_trains_trials_then_winners_and_goes_on_where_it_stopped(tmp_path: Path, bench: Bench) -> None:
    text = RECIPE.replace("[1, 2, 4]", "[1, 2]").replace("seed: [0, 1, 2]", "seed: 3")
    (tmp_path / "small.yaml").write_text(text.replace("  crt: {from: ce, protocol: {epochs: 1}}\n", ""))
    recipe, results = tmp_path / "small.yaml", tmp_path / "results"
    where = [recipe, "--results", results, "--gpus", "none", "--jobs", "1"]
    run = ["run", *where, "--reports", tmp_path]
    waits = "final: waits for search (at most 2 runs)"
    code, out = bench("plan", *where)
    assert code == 0
    assert "2 of 2 runs to train" in out
    assert f"search: 0 of 2; {waits}" in out

    first, second = (point.cell for point in load(recipe).points)
    code, out = bench(*run, "--only", f"id={first.id}")
    assert code == 0
    assert f"search: 1 of 2; {waits}" in out
    record = RunDir(results, first.run_id).record
    before = record.read_bytes()

    code, out = bench(*run)
    assert code == 0
    assert "search: 2 of 2; final: the next `run` trains the winners (at most 2 runs)" in out
    assert record.read_bytes() == before
    assert RunDir(results, second.run_id).is_done()

    code, out = bench("plan", *where, "--only", "phase=final")
    finals = resolve(load(recipe), Results(results)).only(["phase=final"]).points
    assert f"{len(finals)} of {len(finals)} runs to train" in out
    code, out = bench(*run)
    assert code == 0
    assert f"search: 2 of 2; final: {len(finals)} of {len(finals)}" in out
    assert all(RunDir(results, point.cell.run_id).is_done() for point in finals)
    code, out = bench("status", "small", "--results", results)
    assert f"small: search: 2 of 2; final: {len(finals)} of {len(finals)}" in out


def test_the_recipe_of_the_documentation_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    (tmp_path / "my_search.yaml").write_text(shown)
    recipe = load(tmp_path / "my_search.yaml")
    assert f"search: 0 of {len(recipe.points)}; final: waits" in progress_of(recipe, tmp_path)
    assert progress_of(recipe, tmp_path) in text


def test_the_authors_card_stands_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "cards.yaml").write_text(
        "card: authors\n"
        "methods: {ldam_drw: {}, bcl: {}}\n"
        "grid: {dataset: cifar100, imbalance_factor: 100}\n"
        "search: {budgets: 3, held_out: 50, space: {protocol.optimizer.weight_decay: {log: 5}}}\n"
    )
    recipe = load(tmp_path / "cards.yaml")
    for one in recipe.search.methods:
        card = card_of(one.label, "cifar100", 100).whole_protocol()
        (first,), (second,), _ = (trial.cells for trial in one.trials)
        assert first.protocol == card
        decay = card.optimizer.weight_decay
        assert second.protocol.optimizer.weight_decay != decay
        assert decay / 5 <= second.protocol.optimizer.weight_decay <= decay * 5
        assert (first.dataset.n_max, first.dataset.held_out) == (450, 50)
