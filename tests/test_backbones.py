"""Backbones: what timm names give, and how they split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Bench
from method_cells import METHODS, cell_of
from timm_families import FAMILIES, Family

from bench.backbones import Backbone, check_input, count_parameters, create
from bench.cell import BackboneChoice
from bench.errors import BenchError
from bench.method import Batch
from bench.train.build import build
from bench.vision import timm

ONLY_ON_A_VIT = [name for name, entry in METHODS.items() if entry.build.needs_backbone]


def test_cifar_resnet32_has_the_papers_parameters():
    assert count_parameters(timm.create_model("resnet32_cifar", num_classes=100)) == 470_004
    assert count_parameters(timm.create_model("resnet32_cifar", num_classes=10)) == 464_154


@pytest.mark.parametrize(
    ("name", "side", "features"),
    [("resnet8_cifar", 32, 64), ("resnet10t", 64, 512), ("convnext_atto", 64, 320)],
)
def test_features_are_the_pooled_feature_map(name, side, features):
    backbone = create(name).eval()
    images = torch.randn(2, 3, side, side)
    assert backbone.num_features == features
    assert backbone(images).shape == (2, features)
    torch.testing.assert_close(backbone.pool(backbone.feature_map(images)), backbone(images))


def test_nothing_is_dropped_in_evaluation():
    backbone, images = create("resnet10t", drop_rate=0.5), torch.randn(2, 3, 64, 64)
    assert not torch.equal(backbone.train()(images), backbone(images))
    assert torch.equal(backbone.eval()(images), backbone(images))


@pytest.mark.parametrize(("name", "after"), [("resnet8_cifar", "layer1"), ("resnet10t", "layer3")])
def test_the_parts_of_a_split_compose_to_the_whole(name, after):
    backbone = create(name).eval()
    trunk, rest = backbone.split(after)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(rest(trunk.feature_map(images)), backbone(images))
    assert trunk.stage_names[-1] == after


@pytest.mark.parametrize(
    ("name", "after", "features"), [("resnet8_cifar", "layer1", 48), ("resnet18", "layer2", 384)]
)
def test_a_branch_of_three_quarters_width_follows_the_trunk(name, after, features):
    trunk, rest = create(name).split(after)
    branch = create(name, after=after, narrow=0.75)
    assert branch.num_features == features
    assert branch(trunk.feature_map(torch.randn(2, 3, 64, 64))).shape == (2, features)
    assert count_parameters(branch) < 0.6 * count_parameters(rest)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create("resnet32_cifer"), "did you mean 'resnet32_cifar'"),
        (lambda: create("resnet8_cifar", wdth=2), "wdth"),
        (lambda: create("resnet8_cifar", after="layer9"), "cannot split .* did you mean 'layer"),
        (lambda: create("convnext_atto", width=0.5), "width works on ResNets"),
        (lambda: create("convnext_atto").split("layer1"), "cannot split"),
    ],
)
def test_mistakes_are_reported(call, message):
    with pytest.raises(BenchError, match=message):
        call()


# -- any timm model ----------------------------------------------------------------------------------
def sizes(light: bool) -> list[object]:
    return [pytest.param(*item, id=item[0]) for item in FAMILIES.items() if item[1].light == light]


def train_and_score(family: Family) -> None:
    """Build a model as a run does, make one step of cross-entropy, and score; nothing of it is left out."""
    choice = BackboneChoice(name=family.model, options=family.options)
    method = build(cell_of("ce").model_copy(update={"backbone": choice}), np.array([5, 3, 2]))
    backbone: Backbone = method.get_submodule("backbone")  # type: ignore[assignment]
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
    images, labels = torch.randn(2, 3, family.side, family.side), torch.tensor([0, 2])
    method.train()
    loss = method.loss(Batch((images,), labels, torch.arange(2)))
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    method.eval()
    with torch.inference_mode():
        assert method(images).shape == (2, 3)
        with torch.device("meta"):
            whole = timm.create_model(family.model, num_classes=0, **family.options)
        assert count_parameters(whole) == count_parameters(backbone), "a part of the model is left out"


@pytest.mark.parametrize(("name", "family"), sizes(light=True))
def test_the_smallest_model_of_a_family_trains_and_scores(name, family):
    train_and_score(family)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), sizes(light=False))
def test_the_smallest_model_of_a_heavy_family_trains_and_scores(name, family):
    train_and_score(family)


@pytest.mark.slow
def test_no_family_of_timm_is_missing():
    assert {*timm.list_modules()} - {"cifar_resnets"} <= {*FAMILIES}, "cifar_resnets are ours"


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "lcnet_035", "ghostnet_050", "vgg11", "hardcorenas_a"]
)
def test_features_are_as_wide_as_the_head_ends(name):
    check_input(name, 64)
    with torch.device("meta"):
        backbone = create(name)
        assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, backbone.num_features)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "legacy_seresnet18"])
def test_a_model_that_is_more_than_a_stem_and_layers_is_one_stage(name):
    backbone, images = create(name).eval(), torch.randn(2, 3, 64, 64)
    model = backbone.stages["all"].model
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone(images), expected)


@pytest.mark.parametrize(
    ("name", "size", "remedy"),
    [
        ("vit_tiny_patch16_224", 32, r"options: \{img_size: 32\}.*image_size: 224"),
        ("swin_tiny_patch4_window7_224", 64, r"options: \{img_size: 64\}"),
        ("efficientformer_l1", 64, r"\); give the data set image_size: 224"),
        ("inception_v3", 64, r"\); give the data set image_size: 299"),
    ],
)
def test_a_model_that_does_not_take_the_images_is_reported_with_the_option_that_mends_it(name, size, remedy):
    with pytest.raises(
        BenchError, match=rf"'{name}' does not work on images of {size} pixels.*{remedy}"
    ) as error:
        check_input(name, size)
    assert len(str(error.value).splitlines()) == 1


def test_to_look_at_a_model_draws_no_random_number():
    state = torch.get_rng_state()
    check_input("resnet8_cifar", 32)
    with pytest.raises(BenchError):
        check_input("vit_tiny_patch16_224", 32)
    assert torch.equal(torch.get_rng_state(), state)


def test_plan_and_run_tell_what_does_not_fit_before_anything_trains(tmp_path, bench):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "methods: {ce: {}}\nprotocol: {epochs: 1}\n"
        "grid: {dataset: digits, imbalance_factor: 20, backbone: [vit_tiny_patch16_224, resnet8_cifar]}\n"
    )
    where = ["--results", tmp_path / "results", "--data", tmp_path, "--gpus", "none"]
    code, out = bench("plan", recipe, *where)
    assert code == 2
    assert "options: {img_size: 8}" in out or "image_size: 224" in out
    code, out = bench("run", recipe, *where, "--reports", tmp_path)
    assert code == 2
    assert "backbone 'vit_tiny_patch16_224' does not work on images of 8 pixels" in out
    assert not (tmp_path / "results").exists()


def test_a_method_that_enlarges_images_takes_any_size(tmp_path: Path, bench: Bench) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "methods: {lift: {}}\nprotocol: {epochs: 1}\n"
        "grid: {dataset: digits, imbalance_factor: 20, backbone: vit_tiny_patch16_224}\n"
    )
    code, out = bench("plan", recipe, "--results", tmp_path, "--data", tmp_path, "--gpus", "none")
    assert code == 0
    assert "does not work" not in out


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ONLY_ON_A_VIT])
def test_every_method_builds_on_a_net_of_one_stage_or_says_what_it_needs(name):
    said = None
    try:
        build(cell_of(name, "test_convnext"), np.array([5, 3, 2, 1]))
    except BenchError as error:
        said = str(error)
    assert said is None or "choose a ResNet" in said


def test_plan_and_run_tell_a_method_that_does_not_go_with_the_backbone(tmp_path, bench):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "methods: {ride: {}, rsg: {}, ce: {}}\nprotocol: {epochs: 1}\n"
        "grid: {dataset: digits, imbalance_factor: 20, backbone: [resnet8_cifar, "
        "{name: vit_tiny_patch16_224, options: {img_size: 8, patch_size: 4, depth: 1}}]}\n"
    )
    where = ["--results", tmp_path / "results", "--data", tmp_path, "--gpus", "none"]
    out = bench("plan", recipe, *where)[1]
    assert out.count("choose a ResNet") == 2
    code, out = bench("run", recipe, *where, "--reports", tmp_path)
    assert code == 2
    assert "-ride-s0-" in out
    assert "experts need a backbone of several stages; choose a ResNet" in out
    assert bench("plan", recipe, *where, "--only", "backbone=resnet8_cifar")[1].count("choose") == 0
