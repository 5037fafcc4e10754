"""Backbones: what timm names give, and how they split."""

from __future__ import annotations

import pytest
import torch

from bench.backbones import count_parameters, create
from bench.errors import BenchError
from bench.vision import timm


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
def test_mistakes_are_told(call, message):
    with pytest.raises(BenchError, match=message):
        call()
