"""What a recipe means: the cells it makes, and what wins over what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_fakes import GRID, SMALL, fakes, ids, read, recipes

from bench.cell import Cell
from bench.data.sets.catalogue import DATASETS
from bench.errors import BenchError
from bench.recipe import Recipe, grid_file, load
from bench.recipe.files import find
from bench.shipped import RECIPES

__all__ = ["fakes", "recipes"]

pytestmark = pytest.mark.usefixtures("recipes")


def cells(recipe: Recipe, label: str) -> list[Cell]:
    return [point.cell for point in recipe.points if point.label == label]


def only_cell(recipe: Recipe, label: str = "plain") -> Cell:
    (cell,) = cells(recipe, label)
    return cell


def test_a_recipe_reads_as_it_is_written() -> None:
    recipe = read(
        "# What it reproduces.\n#\n#   run it\n\n# not a note\ntitle: Quick look\nmode: exact\n"
        "methods:\n  plain: {}\n  tail_2: {method: tail, params: {gamma: 2}}\n"
        "  again: {method: second, from: plain, protocol: {epochs: 10, schedule: {kind: constant}}}\n"
        "protocol: {epochs: 30, optimizer: {lr: 1e-1}, schedule: {warmup_epochs: 5}}\n" + GRID,
        name="quick.yaml",
    )
    assert (recipe.name, recipe.title) == ("quick", "Quick look")
    assert recipe.notes == "What it reproduces.\n\n  run it"
    assert [p.label for p in recipe.points] == ["plain", "tail_2", "again"] * 4
    assert [p.cell.imbalance_factor for p in recipe.points[::3]] == [10, 10, 20, 20]
    assert [p.cell.seed for p in recipe.points[::3]] == [0, 1, 0, 1]
    plain, tail, again = (p.cell for p in recipe.points[:3])
    assert plain.mode == "exact"
    assert plain.dataset == DATASETS["digits"]
    assert (plain.protocol.epochs, plain.protocol.optimizer.lr) == (30, 0.1)
    assert plain.method.params == {"alpha": 1.0, "scales": (), "kind": "soft"}
    assert isinstance(plain.method.params["alpha"], float)
    assert tail.method.name == "tail"
    assert again.parent == plain
    assert (again.protocol.epochs, again.protocol.schedule.kind) == (10, "constant")
    assert again.protocol.schedule.warmup_epochs == 5, "mappings merge deeply"


def test_a_title_is_the_file_name_and_notes_are_empty_by_default() -> None:
    recipe = read(SMALL, name="small.yaml")
    assert (recipe.title, recipe.notes, only_cell(recipe).seed) == ("small", "", 0)


def test_an_int_and_a_float_of_one_value_are_one_cell() -> None:
    one = read(SMALL, ["methods.plain.params={alpha: 2, scales: [1, 2]}", "grid.imbalance_factor=10"])
    other = read(
        SMALL, ["methods.plain.params={alpha: 2.0, scales: [1.0, 2.0]}", "grid.imbalance_factor=1e1"]
    )
    assert ids(one) == ids(other)
    assert only_cell(one).method.params["scales"] == (1.0, 2.0)


def test_a_default_written_out_is_the_default() -> None:
    assert ids(read(SMALL)) == ids(read(SMALL, ["methods.plain.params.alpha=1", "protocol.epochs=200"]))


def test_a_parent_is_the_same_point_and_chains() -> None:
    recipe = read(
        "methods:\n  c: {method: second, from: b, params: {tau: 2}}\n"
        "  b: {method: second, from: plain}\n  plain: {}\n" + GRID
    )
    for third in cells(recipe, "c"):
        eldest, middle, _ = third.family()
        assert middle in cells(recipe, "b")
        assert eldest in cells(recipe, "plain")
        assert (third.seed, third.imbalance_factor) == (eldest.seed, eldest.imbalance_factor)
    assert len(recipe.points) == 12


# -- axes -------------------------------------------------------------------------------------------
def test_every_protocol_key_is_an_axis() -> None:
    recipe = read(SMALL, ["grid.protocol.epochs=[5, 10]", "grid.protocol.optimizer.lr=[0.1, 0.2]"])
    found = [(c.protocol.epochs, c.protocol.optimizer.lr) for c in cells(recipe, "plain")]
    assert found == [(5, 0.1), (5, 0.2), (10, 0.1), (10, 0.2)]


def test_an_axis_that_is_a_list_or_a_mapping() -> None:
    schedule = "{kind: steps, milestones: [3], factors: [0.1]}"
    recipe = read(SMALL, [f"grid.protocol.schedule=[{{}}, {schedule}]", "grid.params.scales=[[1], [1, 2]]"])
    kinds = [c.protocol.schedule.kind for c in cells(recipe, "plain")]
    assert kinds == ["cosine", "cosine", "steps", "steps"]
    assert cells(recipe, "plain")[1].method.params["scales"] == (1.0, 2.0)


def test_a_params_axis_applies_to_the_methods_that_have_it() -> None:
    sets = ["methods={tail: {}, child: {method: second, from: tail}}", "grid.params.gamma=[1, 2]"]
    recipe = read(SMALL, sets)
    assert [c.method.params["gamma"] for c in cells(recipe, "tail")] == [1.0, 2.0]
    assert len(cells(recipe, "plain")) == 1, "its cell does not change along the axis"
    parents = [c.parent for c in cells(recipe, "child")]
    assert parents == cells(recipe, "tail"), "a child follows its parent along the axis"


def test_what_a_label_sets_itself_wins_over_an_axis() -> None:
    recipe = read(
        SMALL,
        ["methods.short={method: tail, protocol: {epochs: 3}}", "grid.protocol.epochs=[5, 10]"],
    )
    assert [c.protocol.epochs for c in cells(recipe, "plain")] == [5, 10]
    assert only_cell(recipe, "short").protocol.epochs == 3


def test_mode_backbone_and_its_options_are_axes() -> None:
    recipe = read(
        SMALL,
        [
            "grid.backbone=[resnet20_cifar, {name: resnet18.a1_in1k, options: {pretrained: true}}]",
            "grid.backbone.options.drop_rate=[0.1, 0.2]",
            "grid.mode=[fast, exact]",
        ],
    )
    assert len(cells(recipe, "plain")) == 8
    last = cells(recipe, "plain")[-1]
    assert (last.backbone.name, last.mode) == ("resnet18.a1_in1k", "exact")
    assert last.backbone.options == {"pretrained": True, "drop_rate": 0.2}


def test_zipped_axes_move_together() -> None:
    recipe = read(
        "methods: {plain: {}}\ngrid: {imbalance_factor: [10, 20], backbone: resnet8_cifar}\n"
        "zip:\n  - {dataset: [cifar10, cifar100], protocol.batch_size: [128, 64]}\n"
    )
    found = [(c.dataset.name, c.protocol.batch_size) for c in cells(recipe, "plain")]
    assert found == [("cifar10", 128), ("cifar100", 64)] * 2


# -- data sets and overrides ------------------------------------------------------------------------
def test_data_sets_of_a_recipe_start_from_built_in_ones() -> None:
    recipe = read(
        SMALL,
        [
            "datasets.mine={base: cifar10, source: folder, folder: jpegs, copy_of: cifar10, mean: [0, 0, 1]}",
            "datasets.cifar10={n_max: 5000, shots: {many_above: 50}}",
            "datasets.part={base: mine, n_max: 70, copy_kind: a part}",
            "datasets.new={source: folder, folder: new, image_size: 32, profile: natural}",
            "grid.dataset=[mine, part, cifar10, new, cifar100]",
        ],
    )
    mine, part, changed, new, kept = (c.dataset for c in cells(recipe, "plain"))
    assert (mine.name, mine.source, mine.n_max, mine.copy_of) == ("mine", "folder", 5000, "cifar10")
    assert (mine.title, mine.mean) == ("", (0.0, 0.0, 1.0))
    assert part == mine.model_copy(update={"name": "part", "n_max": 70, "copy_kind": "a part"})
    assert (changed.title, changed.shots.many_above, changed.shots.few_below) == ("CIFAR-10-LT", 50, 20)
    assert (new.name, new.n_max, new.profile) == ("new", None, "natural")
    assert kept == DATASETS["cifar100"]


def test_overrides_change_what_they_match_in_their_order() -> None:
    recipe = read(
        "methods: {plain: {}, tail: {protocol: {epochs: 7}}}\nprotocol: {epochs: 5}\n"
        "overrides:\n"
        "  - {match: {imbalance_factor: 20.0}, protocol: {epochs: 10, batch_size: 32}}\n"
        "  - {match: {method: tail, seed: [1, 0], imbalance_factor: 20}, protocol: {epochs: 20}}\n"
        "  - {match: {label: plain, dataset: digits, backbone: resnet8_cifar}, params: {alpha: 3}}\n" + GRID
    )
    assert [c.protocol.epochs for c in cells(recipe, "plain")] == [5, 5, 10, 10]
    assert [c.protocol.epochs for c in cells(recipe, "tail")] == [7, 7, 20, 20]
    assert cells(recipe, "tail")[-1].protocol.batch_size == 32
    assert {c.method.params["alpha"] for c in cells(recipe, "plain")} == {3.0}


def test_an_override_of_a_label_changes_it_as_a_parent_too() -> None:
    recipe = read(
        SMALL,
        [
            "methods.child={method: second, from: plain}",
            "overrides=[{match: {label: plain}, protocol: {epochs: 3}}]",
        ],
    )
    child = only_cell(recipe, "child")
    assert child.protocol.epochs == 200
    assert child.parent is not None
    assert child.parent.protocol.epochs == 3


# -- include and --set ------------------------------------------------------------------------------
def test_the_including_recipe_wins_mappings_merge_and_lists_are_replaced() -> None:
    Path("base.yaml").write_text(
        "title: base\nmethods: {plain: {params: {alpha: 2}}}\nprotocol: {epochs: 5, batch_size: 32}\n" + GRID
    )
    recipe = read(
        "include: base.yaml\nmethods: {tail: {}}\nprotocol: {epochs: 6}\ngrid: {seed: [7]}\n",
        name="top.yaml",
    )
    assert recipe.title == "top", "a title belongs to its file"
    assert [c.seed for c in cells(recipe, "plain")] == [7, 7]
    assert {(c.protocol.epochs, c.protocol.batch_size) for c in cells(recipe, "tail")} == {(6, 32)}
    assert cells(recipe, "plain")[0].method.params["alpha"] == 2.0


def test_an_include_may_go_up_inside_of_the_recipes_folder() -> None:
    Path("recipes/sub").mkdir(parents=True)
    Path("recipes/base.yaml").write_text("include: sub/more.yaml\n" + GRID)
    Path("recipes/sub/more.yaml").write_text("protocol: {epochs: 4}\n")
    recipe = read("include: ../base.yaml\nmethods: {plain: {}}\n", name="recipes/sub/top.yaml")
    assert {c.protocol.epochs for c in cells(recipe, "plain")} == {4}


def test_neither_the_order_of_keys_nor_of_includes_changes_an_id() -> None:
    Path("a.yaml").write_text("protocol: {epochs: 5, optimizer: {lr: 0.2, momentum: 0.5}}\nmode: exact\n")
    Path("b.yaml").write_text(GRID + "protocol: {epochs: 5, batch_size: 32}\n")
    one = read(
        "include: [a.yaml, b.yaml]\nmethods: {plain: {params: {alpha: 2, kind: hard}}, tail: {}}\n"
        "zip:\n  - {params.gamma: [1, 2], protocol.evaluate_every: [1, 2]}\n"
    )
    other = read(
        "zip:\n  - {protocol.evaluate_every: [2, 1], params.gamma: [2, 1]}\n"
        "methods: {tail: {}, plain: {params: {kind: hard, alpha: 2}}}\ninclude: [b.yaml, a.yaml]\n"
    )
    assert ids(one) == ids(other)
    assert len(ids(one)) == 16


def test_sets_lie_over_everything_but_what_a_method_says_itself() -> None:
    Path("base.yaml").write_text("protocol: {epochs: 5}\n")
    text = "include: base.yaml\nprotocol: {epochs: 6}\n" + SMALL
    sets = ["protocol.epochs=1", "protocol.epochs = 2", "grid.seed=[3, 4]", "protocol.optimizer.lr=1e-1"]
    found = cells(read(text, [*sets, "methods.plain.params.alpha=5", "mode=exact"]), "plain")
    assert [(c.seed, c.protocol.epochs, c.protocol.optimizer.lr) for c in found] == [(3, 2, 0.1), (4, 2, 0.1)]
    assert {(c.mode, c.method.params["alpha"]) for c in found} == {("exact", 5.0)}


# -- parts and copies -------------------------------------------------------------------------------
def test_only_narrows_and_a_parent_comes_along_in_the_family() -> None:
    recipe = read("methods: {plain: {}, tail: {}, child: {method: second, from: plain}}\n" + GRID)
    some = recipe.only(["label=tail,child", "imbalance_factor=20", "seed=1"])
    assert [p.label for p in some.points] == ["tail", "child"]
    assert [c.method.name for c in some.points[1].cell.family()] == ["plain", "second"]
    child = some.points[1].cell
    assert recipe.only([f"id={child.id}"]).points == recipe.only([f"run_id={child.run_id}"]).points
    assert recipe.only([]).points == recipe.points
    assert (some.name, some.title) == (recipe.name, recipe.title)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (["label"], "--only: 'label': write key=value, as in label=ce,crt"),
        (["lable=tail"], "--only: unknown key 'lable'; did you mean 'label'?"),
        (["label=tail,plan"], "--only: no cell of r has label 'plan'; did you mean 'plain'?"),
        (["seed=7"], "--only: no cell of r has seed '7'; there are: 0, 1"),
        (["seed="], "--only: no cell of r has seed ''; there are: 0, 1"),
        (["label=plain", "method=tail"], "--only: no cell of r passes all of: label=plain, method=tail"),
    ],
)
def test_only_says_what_there_is(filters: list[str], message: str) -> None:
    recipe = read("methods: {plain: {}, tail: {}}\n" + GRID)
    with pytest.raises(BenchError) as error:
        recipe.only(filters)
    assert str(error.value) == message


def test_a_grid_file_says_every_cell_as_json() -> None:
    recipe = read("# Note.\ntitle: T\nmethods: {c: {method: second, from: plain}, plain: {}}\n" + GRID)
    grid = json.loads(json.dumps(grid_file(recipe), allow_nan=False))
    assert [grid[key] for key in ("recipe", "title", "notes")] == ["r", "T", "Note."]
    assert [entry["run_id"] for entry in grid["cells"]] == [p.cell.run_id for p in recipe.points]
    first = dict(grid["cells"][0])
    assert Cell.model_validate_json(json.dumps(first.pop("cell"))).id == recipe.points[0].cell.id
    assert first == {"run_id": recipe.points[0].cell.run_id, "label": "c"}


# -- where a recipe is ----------------------------------------------------------------------------
def test_a_recipe_is_found_by_its_name_in_the_folders() -> None:
    read(SMALL, name="recipes/some/mine.yaml")
    for name in ("mine", "mine.yaml", "recipes/mine.yaml", "recipes/some/mine.yaml"):
        recipe = load(Path(name))
        assert (recipe.name, len(recipe.points)) == ("mine", 1)
    with pytest.raises(BenchError, match=r"^other/mine.yaml: no such file; did you mean 'recipes/some/mine"):
        load(Path("other/mine.yaml"))


def test_a_file_that_there_is_comes_before_one_of_its_name() -> None:
    read(SMALL, name="recipes/some/mine.yaml")
    assert read("title: Here\n" + SMALL, name="recipes/mine.yaml").title == "Here"
    assert read("title: Nearer\n" + SMALL, name="mine.yaml").title == "Nearer"
    assert load(Path("mine.yaml")).title == "Nearer"


def test_a_name_of_two_recipes_is_refused() -> None:
    for folder in ("one", "two"):
        read(SMALL, name=f"recipes/{folder}/mine.yaml")
    with pytest.raises(BenchError, match=r"^mine: is recipes/one/mine.yaml and recipes/two/mine.yaml; name"):
        load(Path("mine"))
    with pytest.raises(BenchError, match=r"include: 'mine.yaml' is recipes/one/mine.yaml and recipes/two"):
        read("include: mine.yaml\n", name="recipes/three/top.yaml")


def test_what_is_included_is_found_by_its_name_in_the_folders() -> None:
    read("protocol: {epochs: 4}\n" + SMALL, name="recipes/shared/base.yaml")
    recipe = read("include: base.yaml\ntitle: Top\n", name="recipes/some/top.yaml")
    assert [point.cell.protocol.epochs for point in recipe.points] == [4]
    read("protocol: {epochs: 5}\n" + SMALL, name="recipes/some/base.yaml")
    assert load(Path("top")).points[0].cell.protocol.epochs == 5  # what stands beside it comes first


def test_outside_of_a_folder_of_recipes_an_include_is_looked_for_beside_it_alone() -> None:
    read(SMALL, name="mine/deeper/base.yaml")
    with pytest.raises(BenchError, match=r"^mine/top.yaml:1: include: 'base.yaml': no such file"):
        read("include: base.yaml\n", name="mine/top.yaml")


def test_a_recipe_of_the_project_is_found_from_anywhere() -> None:
    found = find(Path("quick"))
    assert found.is_absolute()
    assert found == find(Path("recipes/quick.yaml")) == RECIPES / "digits" / "quick.yaml"
    assert find(Path("elsewhere/quick.yaml")) == Path("elsewhere/quick.yaml")


def test_a_label_has_a_backbone_of_its_own_in_the_place_of_the_grids() -> None:
    text = (
        "methods:\n  plain: {backbone: {name: resnet56_cifar, options: {width: 2}}}\n"
        "  again: {method: second, from: plain}\n"
        "grid:\n  dataset: digits\n  imbalance_factor: 10\n"
        "  backbone: {name: resnet8_cifar, options: {in_chans: 3}}\n"
    )
    recipe = read(text)
    first, again = only_cell(recipe), only_cell(recipe, "again")
    assert (first.backbone.name, first.backbone.options) == ("resnet56_cifar", {"width": 2})
    assert again.backbone.name == "resnet8_cifar"
    assert again.parent == first
    changed = read(
        text + "overrides: [{match: {backbone: resnet56_cifar}, protocol: {epochs: 3}}]\n", name="o.yaml"
    )
    assert (only_cell(changed).protocol.epochs, only_cell(changed, "again").protocol.epochs) == (3, 200)


def test_an_unknown_backbone_of_a_label_is_reported_with_its_place() -> None:
    with pytest.raises(BenchError, match=r"r.yaml:2: methods.plain.backbone.*'resnet9_cifar'.*did you mean"):
        read("methods:\n  plain: {backbone: resnet9_cifar}\n" + GRID)


def test_an_override_for_a_data_set_holds_for_its_comparable_copy_too() -> None:
    text = (
        "grid: {dataset: [cifar100_rebuilt, cifar10], imbalance_factor: 10, backbone: resnet8_cifar}\n"
        "methods: {plain: {}}\n"
        "overrides: [{match: {dataset: cifar100}, protocol: {epochs: 3}}]\n"
    )
    epochs = {point.cell.dataset.name: point.cell.protocol.epochs for point in read(text).points}
    assert epochs == {"cifar100_rebuilt": 3, "cifar10": 200}
