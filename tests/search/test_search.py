"""A recipe's search: which trials it has, that they are always the same ones, and what it is refused for."""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipe_fakes import fakes, read, recipes

from bench.controls import Control
from bench.errors import BenchError
from bench.recipe import grid_file
from bench.recipe import methods as methods_of
from bench.search.choice import expected_best, winner, winners
from bench.search.space import Range, draws

__all__ = ["fakes", "recipes"]

pytestmark = pytest.mark.usefixtures("recipes")

GRID = """\
methods:
  plain: {}
  two: {method: second, from: plain}
grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar, seed: [0, 1, 2]}
protocol: {epochs: 30, batch_size: 64, optimizer: {lr: 0.02}}
"""
SEARCH = """\
search:
  budgets: [1, 8]
  held_out: 20
  space:
    protocol.optimizer.lr: {log: 10}
  methods:
    plain:
      params.alpha: {linear: [0.5, 2.0]}
      params.kind: {choice: [soft, hard]}
      protocol.batch_size: {log: 4}
"""


def trials(text=GRID + SEARCH):
    """Return the cells of all trials by label, in order."""
    recipe = read(text)
    assert all(point.phase == "search" for point in recipe.points)
    return {
        label: [point.cell for point in some]
        for label, some in itertools.groupby(recipe.points, key=lambda point: point.method_label)
    }


def held(cell):
    """Return a cell with images held out, as are those of what it starts from."""
    dataset = cell.dataset.model_copy(update={"held_out": 20, "n_max": 100})
    return cell.model_copy(update={"dataset": dataset, "parent": cell.parent and held(cell.parent)})


# -- the space ---------------------------------------------------------------------------------------
def test_every_method_has_as_many_trials_and_the_first_is_the_recipes_own():
    found = trials()
    assert {label: len(cells) for label, cells in found.items()} == {"plain": 8, "two": 8}
    own = {point.label: point.cell for point in read(GRID).points if point.cell.seed == 0}
    for label, cells in found.items():
        assert cells[0] == held(own[label])
        assert len({cell.id for cell in cells}) == 8


def test_a_trial_differs_from_what_would_win_by_what_is_held_out_alone():
    recipe = read(GRID + SEARCH)
    searched = recipe.search.methods[0]
    for draw, trial in enumerate(searched.trials, start=1):
        finals = [cell for label, cell, _ in recipe.search._finals(searched, draw)]
        assert [cell.seed for cell in finals] == [0, 1, 2]
        for cell in finals:
            (tried,) = trial.cells
            assert cell.model_copy(update={"dataset": tried.dataset, "seed": 0}) == tried
            assert cell.dataset.held_out is None


def test_values_lie_in_their_ranges_and_spread_over_them():
    cells = trials(GRID + SEARCH.replace("[1, 8]", "64"))["plain"]
    rates = sorted(cell.protocol.optimizer.lr for cell in cells)
    assert rates[0] >= 0.002
    assert rates[-1] <= 0.2
    shares = [math.log(rate / 0.002) / math.log(100) for rate in rates]
    assert all(
        sum(low <= share < low + 0.25 for share in shares) in range(14, 19) for low in (0, 0.25, 0.5, 0.75)
    )
    sizes = {cell.protocol.batch_size for cell in cells}
    assert all(16 <= size <= 256 for size in sizes)
    assert len(sizes) > 30
    assert {cell.method.params["kind"] for cell in cells} == {"soft", "hard"}
    assert all(0.5 <= cell.method.params["alpha"] <= 2 for cell in cells)
    assert all(len(f"{rate:.10g}".strip("0.").replace(".", "")) <= 3 for rate in rates)


def test_a_trial_starts_from_the_trial_of_its_number():
    found = trials()
    assert [cell.parent for cell in found["two"]] == found["plain"]
    record = read(GRID + SEARCH).search.record()
    assert (
        record.methods[1].trials[3].setting["plain: params.alpha"] == found["plain"][3].method.params["alpha"]
    )


def test_draws_are_the_same_ones_whatever_else_is_asked_for():
    found = trials()
    for other in (
        GRID + SEARCH.replace("[1, 8]", "16"),
        GRID.replace("seed: [0, 1, 2]", "seed: 7") + SEARCH,
        GRID.replace("  plain: {}\n", "  tail: {}\n  plain: {}\n") + SEARCH,
    ):
        again = trials(other)
        assert again["plain"][:8] == found["plain"]
        assert again["two"][:8] == found["two"]
    rates = {
        label: [cell.protocol.optimizer.lr for cell in cells][1:]
        for label, cells in trials(GRID.replace("two:", "tail: {}\n  two:") + SEARCH).items()
    }
    assert not set(rates["plain"]) & set(rates["tail"]), "each method's own cell seeds its draws"


def test_the_draws_of_the_first_release_stay():
    """A recipe of a finished search must mean the same trials with every version of every library."""
    one = {"lr": Range(log=10), "margin": Range(linear=(0.1, 0.9))}
    assert draws(one, {"lr": 0.1, "margin": 0.5}, 4, "seed")[1:] == DRAWN


DRAWN = [
    {"lr": 0.013, "margin": 0.283},
    {"lr": 0.13, "margin": 0.683},
    {"lr": 0.41, "margin": 0.483},
]


def test_several_seeds_try_a_setting():
    found = trials(GRID + SEARCH + "  seed: [3, 5]\n")["plain"]
    assert [cell.seed for cell in found] == [3, 5] * 8
    assert found[2].model_copy(update={"seed": 5}) == found[3]


def test_a_method_that_an_axis_does_not_change_is_searched_once():
    axis = GRID.replace("seed: [0, 1, 2]", "params.tau: [1.0, 2.0]") + SEARCH
    found = trials(axis)
    assert len(found["plain"]) == 8
    assert len(found["two"]) == 16


def test_controls_are_trained_with_what_won_and_tried_by_nobody(monkeypatch):
    control = {"plain": {"hard": Control(params={"kind": "hard"})}}
    monkeypatch.setattr(methods_of, "controls", lambda: control)
    text = GRID.replace("  two: {method: second, from: plain}\n", "") + "controls: true\n"
    recipe = read(text + SEARCH.replace("      params.kind: {choice: [soft, hard]}\n", ""))
    assert {point.method_label for point in recipe.points} == {"plain"}
    (searched,) = recipe.search.methods
    finals = list(recipe.search._finals(searched, 2))
    assert [label for label, *_ in finals] == ["plain", "plain-hard"] * 3
    whole, without = finals[0][1], finals[1][1]
    assert without.method.params == whole.method.params | {"kind": "hard"}
    assert finals[0][2] == {"hard": without.run_id}


def test_the_grid_file_has_all_trials_and_can_be_filtered():
    recipe = read(GRID + SEARCH)
    content = json.loads(json.dumps(grid_file(recipe)))
    assert [cell["label"] for cell in content["cells"]][:2] == ["plain-trial1", "plain-trial2"]
    assert content["search"]["budgets"] == [1, 8]
    assert len(recipe.only(["label=two", "phase=search"]).points) == 8


# -- what is refused ---------------------------------------------------------------------------------
RATE = ".space.protocol.optimizer.lr"
FEW = "settings for {} trials; give it wider ranges, or more of them"

#: The section, the line and the path of the mistake, and what is said of it.
REFUSED = {
    "no budget": ("search: {held_out: 20}\n", 6, "", "needs 'budgets'"),
    "falling budgets": (
        "search: {budgets: [4, 1], held_out: 20}\n",
        6,
        ".budgets",
        "should be a number, or a list of rising ones",
    ),
    "unknown key": (
        "search: {budgets: 4, held_out: 20, spaces: {}}\n",
        6,
        ".spaces",
        "unknown key 'spaces'; did you mean 'space'?",
    ),
    "nothing to search": (
        "search: {budgets: 4, held_out: 20}\n",
        6,
        "",
        f"the space of 'plain' has 1 {FEW.format(4)}\n",
    ),
    "too few settings": (
        SEARCH.replace("{log: 10}", "{choice: [0.02, 0.2]}"),
        6,
        "",
        f"the space of 'two' has 2 {FEW.format(8)}",
    ),
    "everything held out": (
        SEARCH.replace("held_out: 20", "held_out: 120"),
        8,
        ".held_out",
        "takes all 120 images of the largest class of digits; lower it",
    ),
    "unknown label": (
        SEARCH.replace("    plain:", "    plian:"),
        12,
        ".methods.plian",
        "unknown label 'plian'; did you mean 'plain'?",
    ),
    "no such section": (
        SEARCH.replace("params.alpha", "param.alpha"),
        13,
        ".methods.plain.param.alpha",
        "a key is protocol.NAME or params.NAME, as in protocol.optimizer.lr",
    ),
    "no such hyper-parameter": (
        SEARCH.replace("params.alpha", "params.alhpa"),
        13,
        ".methods.plain.params.alhpa",
        "'plain' has no hyper-parameter 'alhpa'; did you mean 'alpha'?",
    ),
    "no such key": (
        SEARCH.replace("optimizer.lr", "optimizer.momentun"),
        10,
        ".space.protocol.optimizer.momentun",
        "unknown key 'momentun'; did you mean 'momentum'?",
    ),
    "shared by nobody": (
        SEARCH.replace("protocol.optimizer.lr", "params.margin"),
        10,
        ".space.params.margin",
        "no method here has it; remove it",
    ),
    "two kinds of range": (
        SEARCH.replace("{log: 10}", "{log: 10, linear: 1}"),
        10,
        RATE,
        "a range is one of linear, log and choice, as in {log: 10}",
    ),
    "the middle is outside": (
        SEARCH.replace("{log: 10}", "{log: [0.1, 1.0]}"),
        10,
        RATE,
        "plain: from 0.1 to 1 should include the recipe's own value, 0.02, and others\n",
    ),
    "the middle is no choice": (
        SEARCH.replace("[soft, hard]", "[hard]"),
        14,
        ".methods.plain.params.kind",
        'plain: the choice lacks the recipe\'s own value, "soft"; add it',
    ),
    "a logarithm of nothing": (
        SEARCH.replace("protocol.optimizer.lr: {log: 10}", "protocol.label_smoothing: {log: 10}"),
        10,
        ".space.protocol.label_smoothing",
        "plain: log needs a value above 0, and the recipe's own is 0; write linear\n",
    ),
    "a range of text": (
        SEARCH.replace("{choice: [soft, hard]}", "{linear: 1}"),
        14,
        ".methods.plain.params.kind",
        'plain: the recipe\'s own value is "soft", not a number; write a choice',
    ),
    "a key in nothing": (
        SEARCH.replace("protocol.optimizer.lr", "protocol.averaging.decay"),
        10,
        ".space.protocol.averaging.decay",
        "the recipe has no protocol.averaging to search in; give it one, or remove the key",
    ),
    "a value that no cell can have": (
        SEARCH.replace("protocol.optimizer.lr: {log: 10}", "protocol.optimizer.momentum: {linear: 0.4}"),
        10,
        ".space.protocol.optimizer.momentum",
        r"should be less than or equal to 1, got 1\.\d+; a trial has it: narrow the range\n",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_mistakes_are_reported_with_file_line_key_and_remedy(what):
    text, line, path, message = REFUSED[what]
    with pytest.raises(BenchError) as error:
        read(GRID + text)
    message = message if "\\" in message else re.escape(message.rstrip("\n")) + "\n" * message.count("\n")
    assert re.match(re.escape(f"r.yaml:{line}: search{path}: ") + message, f"{error.value}\n")


def test_what_is_scored_on_held_out_images_already_is_refused():
    text = (
        GRID.replace("dataset: digits", "dataset: held") + "datasets: {held: {base: digits, held_out: 5}}\n"
    )
    with pytest.raises(BenchError, match=r"search\.held_out: held is tested on held-out images already"):
        read(text + SEARCH)


# -- the choice --------------------------------------------------------------------------------------
SCORES = st.lists(st.one_of(st.none(), st.integers(0, 1000).map(lambda n: n / 10)), min_size=1, max_size=9)


@given(SCORES)
def test_the_expected_best_is_the_mean_over_all_sets_of_trials(scores):
    known = [score or 0.0 for score in scores]
    brute = [
        sum(map(max, itertools.combinations(known, k))) / math.comb(len(known), k)
        for k in range(1, len(known) + 1)
    ]
    assert expected_best(scores) == pytest.approx(brute)


def test_the_expected_best_of_many_trials_is_finite_and_rises():
    found = expected_best([float(n % 97) for n in range(1000)])
    assert found == pytest.approx(sorted(found))
    assert found[-1] == pytest.approx(96)


@given(SCORES)
def test_the_first_of_the_best_wins_each_budget_by_the_trials_it_has(scores):
    for k, draw in winners(scores, range(1, len(scores) + 1)).items():
        first = scores[:k]
        known = [score for score in first if score is not None]
        assert first[draw - 1] == max(known)
        assert all(score is None or score < max(known) for score in first[: draw - 1])
    assert (winner(scores) is None) == all(score is None for score in scores)


@given(
    st.floats(1e-4, 10),
    st.floats(1.5, 100),
    st.lists(st.floats(0, 0.999999), min_size=1, max_size=20),
    st.booleans(),
)
def test_a_drawn_number_stays_inside_of_its_range(middle, factor, shares, linear):
    middle = float(f"{middle:.3g}")
    one = Range(linear=middle / factor) if linear else Range(log=factor)
    low, high = (
        (middle - middle / factor, middle + middle / factor) if linear else (middle / factor, middle * factor)
    )
    one.check(middle)
    assert all(low <= one.at(share, middle) <= high for share in shares)
