"""Cells that start from several others, subsamples of the tail, and the soup that needs both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_values import golden
from small_runs import make_cell
from small_runs import run as run_one
from tiny_vit import COUNTS, make

from bench.cell import BackboneChoice
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import load
from bench.errors import BenchError
from bench.launch.checks import training_images
from bench.method import Batch
from bench.recipe import load as load_recipe
from bench.records import Results
from bench.registry import find
from bench.result import series
from bench.rundir import RunDir
from bench.train.run import run_cell
from methods.lt_soups import merged

torch.set_num_threads(1)

VIT = BackboneChoice(
    name="vit_tiny_patch16_224",
    options={"img_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 48, "num_heads": 3},
)
RECIPE = """
title: A soup
grid:
  dataset: digits
  imbalance_factor: 20
  backbone:
    name: vit_tiny_patch16_224
    options: {img_size: 8, patch_size: 4, depth: 1, embed_dim: 48, num_heads: 3}
  seed: [0, 1]
protocol: {epochs: 1, batch_size: 64, schedule: {kind: constant}}
methods:
  tail_1: {method: clip_full_fine_tuning, protocol: {subsample: 1}}
  tail_4: {method: clip_full_fine_tuning, protocol: {subsample: 4}}
  lt_soups_merge: {from: [tail_1, tail_4]}
  lt_soups: {from: lt_soups_merge}
"""


def cells(text: str, tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return {point.cell.method.name + str(point.cell.seed): point.cell for point in load_recipe(file).points}


def test_a_recipe_names_several_parents_in_their_order(tmp_path):
    soup = cells(RECIPE, tmp_path)["lt_soups_merge0"]
    assert [parent.protocol.subsample for parent in soup.parents] == [1, 4]
    assert [member.method.name for member in soup.family()] == [
        "clip_full_fine_tuning",
        "clip_full_fine_tuning",
        "lt_soups_merge",
    ]
    reordered = cells(RECIPE.replace("[tail_1, tail_4]", "[tail_4, tail_1]"), tmp_path)["lt_soups_merge0"]
    assert reordered.id != soup.id


def test_series_forget_the_seeds_of_all_parents(tmp_path):
    made = cells(RECIPE, tmp_path)
    assert series(made["lt_soups0"]) == series(made["lt_soups1"])
    assert series(made["lt_soups0"]) != series(made["lt_soups_merge0"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[tail_1, tail_4]", "[tail_1, tail_5]", "unknown label 'tail_5'; did you mean"),
        (
            "{from: lt_soups_merge}",
            "{from: [lt_soups_merge, tail_1]}",
            "starts from one cell; name one label",
        ),
        ("[tail_1, tail_4]", "[tail_1, lt_soups]", "a loop: "),
        ("[tail_1, tail_4]", "3", "should be text or a list"),
    ],
)
def test_wrong_parents_are_reported(tmp_path, old, new, message):
    with pytest.raises(BenchError, match=message):
        cells(RECIPE.replace(old, new), tmp_path)


def test_a_cell_without_others_keeps_its_id():
    cell = make_cell()
    assert "others" not in cell.identity()
    assert "subsample" not in cell.identity()["protocol"]
    assert cell.parents == ()
    child = cell.model_copy(update={"parent": cell})
    assert child.parents == (cell,)
    assert child.identity().keys() - cell.identity().keys() == {"parent"}


def test_a_failed_parent_of_several_blocks(tmp_path):
    made = cells(RECIPE, tmp_path)
    soup = made["lt_soups_merge0"]
    run = RunDir(tmp_path, soup.parents[1].run_id)
    run.write_cell(soup.parents[1])
    run.write_record({"status": "failed", "reason": "it was"})
    assert Results(tmp_path).states([soup])[soup.run_id].status == "blocked"


def test_a_soup_is_cooked_from_runs(tmp_path):
    made = cells(RECIPE, tmp_path)
    for cell in made["lt_soups0"].family():
        run_cell(cell, tmp_path, tmp_path)
        record = RunDir(tmp_path, cell.run_id).read_record()
        assert record["status"] == "done", record["traceback"]
    member = RunDir(tmp_path, made["lt_soups0"].family()[0].run_id).read_record()
    assert member["data"]["epoch_counts"] == [6] * 10
    assert member["data"]["class_counts"][0] == 120


@pytest.mark.parametrize("ratio", [1, 2, 4, 64])
def test_a_subsample_keeps_the_rare_and_cuts_the_frequent(ratio):
    split = load(DATASETS["digits"], 20.0, Path())
    some = load(DATASETS["digits"], 20.0, Path(), ratio)
    expected = np.minimum(split.class_counts, split.class_counts.min() * ratio)
    np.testing.assert_array_equal(some.epoch_counts, expected)
    np.testing.assert_array_equal(some.class_counts, split.class_counts)
    assert set(some.positions) <= set(split.positions)
    again = load(DATASETS["digits"], 20.0, Path(), ratio)
    np.testing.assert_array_equal(again.positions, some.positions)
    labels = dict(zip(split.positions.tolist(), split.labels.tolist(), strict=True))
    assert [labels[p] for p in some.positions.tolist()] == some.labels.tolist()


def test_a_subsample_s_runs_are_not_those_of_the_whole(tmp_path):
    cell = make_cell(epochs=1)
    less = cell.model_copy(update={"protocol": cell.protocol.model_copy(update={"subsample": 2})})
    whole, part = run_one(cell, tmp_path, tmp_path), run_one(less, tmp_path, tmp_path)
    assert part["status"] == "done", part["traceback"]
    assert whole["data"]["fingerprint"]["train"] != part["data"]["fingerprint"]["train"]
    assert "epoch_counts" not in whole["data"]
    counted = [training_images(one, tmp_path) for one in (cell, less)]
    assert counted == [sum(whole["data"]["class_counts"]), sum(part["data"]["epoch_counts"])]


def test_the_authors_soup():
    g, meta = golden("ltsoups_merge_C10")
    counts = g["cls_num_list"]
    for factor, expected in zip(meta["factors"], g["sub_counts"], strict=True):
        assert torch.equal(counts.clamp(max=int(counts.min()) * 2**factor), expected)
    stages = [{"w": stage.mean(dim=0)} for stage in g["fine_tuned"]]
    soup = merged({"w": g["zero_shot"]}, stages, meta["merge_lm"])["w"]
    torch.testing.assert_close(soup, g["soup"], rtol=1e-6, atol=1e-7)


def test_a_soup_takes_members_of_one_kind_only():
    soup = make("lt_soups_merge")
    with pytest.raises(BenchError, match="averages networks of one kind"):
        soup.start_from_all([make("clip_full_fine_tuning"), make("lift_plus")])


def test_a_soup_is_between_its_members():
    members = [make("clip_full_fine_tuning") for _ in range(2)]
    soup = make("lt_soups_merge", share=0.5)
    start = soup.backbone.state_dict()["stages.all.model.cls_token"].clone()
    soup.start_from_all(members)
    first, second = (m.backbone.state_dict()["stages.all.model.cls_token"] for m in members)
    expected = start / 4 + first / 4 + second / 2
    torch.testing.assert_close(soup.backbone.state_dict()["stages.all.model.cls_token"], expected)
    batch = Batch((torch.randn(3, 3, 32, 32),), torch.tensor([0, 1, 2]), torch.arange(3))
    assert soup.eval()(batch.images).shape == (3, len(COUNTS))
    assert find("lt_soups_merge").build.several_parents
