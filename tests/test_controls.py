"""Controls: which there are, what a recipe makes of them, and that none passes for a published method."""

from __future__ import annotations

import pytest
from leaderboard_fakes import literature, run, table

from bench import controls, registry
from bench.cell import Protocol
from bench.controls import control_named
from bench.errors import BenchError
from bench.leaderboard import protocols
from bench.recipe import grid_file, load

RECIPE = """\
controls: true
methods:
  bcl: {params: {scale: 20.0}, protocol: {epochs: 9}}
  rsg: {params: {max_margin: 0.3, head_share: 0.5}}
  dscl: {}
  dscl_linear: {from: dscl, protocol: {epochs: 5}}
  ce: {}
overrides:
  - {match: {label: bcl, imbalance_factor: 10}, params: {contrast_weight: 0.5, ce_weight: 3.0}}
grid: {dataset: digits, imbalance_factor: [10, 20], backbone: resnet8_cifar, seed: [0, 1]}
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE)
    return load(file)


def cell(recipe, label, factor=20, seed=0):
    (one,) = (
        point.cell
        for point in recipe.points
        if (point.label, point.cell.imbalance_factor, point.cell.seed) == (label, factor, seed)
    )
    return one


@pytest.mark.parametrize("method", controls.controls())
def test_every_control_is_of_a_method_that_can_be_so(method):
    entry = registry.find(method)
    for control in controls.controls()[method].values():
        other = registry.find(control.method) if control.method else entry
        made = other.choose(**{k: tuple(v) if isinstance(v, list) else v for k, v in control.params.items()})
        assert control.method or control.protocol or made.changed
        assert set(control.protocol) <= set(Protocol.model_fields)


def test_a_control_is_its_label_but_for_one_part(recipe):
    whole, without = cell(recipe, "bcl"), cell(recipe, "bcl-no_contrast")
    assert without.method.params == whole.method.params | {"contrast_weight": 0.0}
    assert without.protocol == whole.protocol
    assert without.protocol.epochs == 9
    assert without.method.params["scale"] == 20
    assert cell(recipe, "bcl-plain_views").protocol.views == ("main", "main", "main")


def test_what_is_said_of_a_label_holds_for_its_controls_except_what_they_change(recipe):
    assert cell(recipe, "bcl-no_contrast", 10).method.params["ce_weight"] == 3
    assert cell(recipe, "bcl-no_contrast", 10).method.params["contrast_weight"] == 0
    assert cell(recipe, "bcl-ce_weight_1", 10).method.params["contrast_weight"] == 0.5


def test_a_control_of_another_method_keeps_what_that_one_knows(recipe):
    without = cell(recipe, "rsg-no_rsg")
    assert without.method.name == "ldam_drw"
    assert without.method.params["max_margin"] == 0.3


def test_what_starts_from_a_label_is_trained_again_from_its_control(recipe):
    second = cell(recipe, "dscl_linear-no_decoupling")
    assert second.parent == cell(recipe, "dscl-no_decoupling")
    assert second.parent.method.params["beta"] is None
    assert second.model_copy(update={"parent": None}) == cell(recipe, "dscl_linear").model_copy(
        update={"parent": None}
    )


def test_the_grid_file_says_which_runs_are_whose_controls(recipe):
    entries = {entry["run_id"]: entry for entry in grid_file(recipe)["cells"]}
    for seed in (0, 1):
        named = entries[cell(recipe, "bcl", seed=seed).run_id]["controls"]
        assert named["no_contrast"] == cell(recipe, "bcl-no_contrast", seed=seed).run_id
        assert set(named) == {"no_contrast", "plain_views", "ce_weight_1"}
        assert named.keys() & entries.keys() == set()
        assert set(named.values()) <= set(entries)
    assert "controls" not in entries[cell(recipe, "ce").run_id]


def test_a_control_that_the_recipe_has_already_stands_there_once(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "controls: true\nmethods: {rsg: {}, ldam_drw: {}, bcl: {protocol: {views: [main, main, main]}}}\n"
        "grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar}\n"
    )
    points = load(file).points
    named = {point.label: point for point in points}
    assert "rsg-no_rsg" not in named
    assert "bcl-plain_views" not in named
    assert named["rsg"].controls == {"no_rsg": named["ldam_drw"].cell.run_id}
    assert set(named["bcl"].controls) == {"no_contrast", "ce_weight_1"}
    assert len({point.cell.id for point in points}) == len(points)


def test_without_the_word_there_are_no_controls_and_a_label_may_not_have_ones_name(tmp_path):
    file = tmp_path / "r.yaml"
    grid = "grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar}\n"
    file.write_text("methods: {bcl: {}}\n" + grid)
    (point,) = load(file).points
    assert point.controls == {}
    file.write_text("controls: true\nmethods:\n  bcl: {}\n  bcl-no_contrast: {method: ce}\n" + grid)
    with pytest.raises(BenchError, match=r"r.yaml:4: .*is the name of a control of 'bcl'; rename this label"):
        load(file)


def test_a_trained_control_is_reported_from_the_whole_method():
    whole = registry.find("bcl").choose().params
    assert control_named("bcl", whole) is None
    assert control_named("bcl", whole | {"contrast_weight": 0.0}) == "no_contrast"
    assert control_named("bcl", whole, ("main", "main", "main")) == "plain_views"
    assert control_named("bcl", whole, ("main", "simclr", "simclr")) is None
    experts = registry.find("balpoe").choose(taus=(1.0, 1.0, 1.0)).params
    assert control_named("balpoe", experts) == "equal_experts"
    assert control_named("balpoe", experts | {"taus": [1.0, 1.0, 1.0]}) == "equal_experts"
    assert control_named("ldam_drw", registry.find("ldam_drw").choose().params) is None
    assert control_named("dscl", registry.find("dscl").choose().params) is None
    assert control_named("ce", registry.find("ce").choose().params) is None


def test_a_control_is_never_held_against_a_published_number(tmp_path):
    known = literature(tmp_path, {"method": "bcl"})
    params = registry.find("bcl").choose().params
    whole, without = run("bcl", params=params), run("bcl", params=params | {"contrast_weight": 0.0})
    found = protocols(table(whole, without), known)
    assert [one.literature for one in found] == ["bcl", None]
