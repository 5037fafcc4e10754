"""Experts: branches on a shared trunk, ensembles of any classifier on them, and RIDE."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from bench import backbones, registry
from bench.backbones import count_parameters
from bench.errors import BenchError
from bench.method import Batch, Clock
from methods.cross_entropy import CrossEntropy
from methods.logit_adjustment import LogitAdjustment
from methods.parts.experts import ExpertEnsemble, Experts
from methods.ride import ride_temperatures

torch.set_num_threads(1)

COUNTS = np.array([40, 5, 120, 12])
tiny = partial(backbones.create, "resnet8_cifar")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class CrossEntropyExperts(ExpertEnsemble, CrossEntropy):
    """Cross-entropy on experts."""


class BalancedExperts(ExpertEnsemble, LogitAdjustment):
    """Balanced softmax on experts."""


def ride(**params):
    entry = registry.find("ride")
    return entry.build(tiny, COUNTS, **entry.hyperparameters(**params).model_dump())


def batch_of(labels):
    return Batch((torch.randn(len(labels), 3, 16, 16),), torch.tensor(labels), torch.arange(len(labels)))


@pytest.mark.parametrize("name", ["ride", "balpoe", "shike_stage_1", "dscl_pbsd_ensemble", "ncl", "bbn"])
def test_experts_stand_on_a_widened_backbone_too(name):
    entry = registry.find(name)
    wide = partial(backbones.create, "resnet8_cifar", width=2)
    method = entry.build(wide, COUNTS, **entry.hyperparameters().model_dump()).eval()
    assert method(torch.randn(2, 3, 32, 32)).shape == (2, len(COUNTS))


def test_a_narrower_branch_of_a_wider_backbone_is_both():
    branch = Experts(partial(backbones.create, "resnet8_cifar", width=4), 2, 0.75)
    assert branch.num_features == 192


@pytest.mark.parametrize(
    ("name", "voters"),
    [("ce", 1), ("ride", 3), ("dscl_ensemble_linear", 3), ("shike", 3), ("ncl", 3), ("reslt", 3)],
)
def test_a_method_says_how_many_vote(name, voters):
    entry = registry.find(name)
    assert entry.build(tiny, COUNTS, **entry.hyperparameters().model_dump()).experts == voters


@pytest.mark.parametrize(
    ("name", "shared", "features"),
    [("resnet8_cifar", ("stem", "layer1"), 48), ("resnet10t", ("stem", "layer1", "layer2"), 384)],
)
def test_the_last_two_stages_are_the_experts_own_and_narrower(name, shared, features):
    experts = Experts(partial(backbones.create, name), 3, 0.75).eval()
    assert experts.stage_names == (*shared, "experts")
    assert experts.num_features == features
    images = torch.randn(2, 3, 32, 32)
    maps = experts.feature_map(images)
    assert maps.shape[:3] == (3, 2, features)
    torch.testing.assert_close(experts(images), maps.mean(dim=(3, 4)))
    torch.testing.assert_close(experts.pool(maps), experts(images))
    assert not torch.equal(maps[0], maps[1])


def test_ride_has_the_channels_of_the_authors_resnet32():
    experts = Experts(partial(backbones.create, "resnet32_cifar"), 3, 0.75)
    trunk, rest = backbones.create("resnet32_cifar").split("layer1")
    own = [count_parameters(branch) for branch in experts.stages["experts"].each]
    assert len(set(own)) == 1
    assert count_parameters(experts) == count_parameters(trunk) + sum(own)
    channels = {m.out_channels for m in experts.modules() if isinstance(m, torch.nn.Conv2d)}
    assert channels == {16, 24, 48}
    assert 0.5 < own[0] / count_parameters(rest) < 0.6  # the square of 3/4


def test_full_width_experts_are_the_backbones_own_stages():
    experts = Experts(tiny, 2, 1.0)
    trunk, rest = tiny().split("layer1")
    assert count_parameters(experts) == count_parameters(trunk) + 2 * count_parameters(rest)


def test_experts_need_stages():
    with pytest.raises(BenchError, match="choose a ResNet"):
        Experts(partial(backbones.create, "convnext_atto"), 3, 1.0)


@pytest.mark.parametrize("ensemble", [CrossEntropyExperts, BalancedExperts])
def test_any_classifier_becomes_an_ensemble(ensemble):
    method = ensemble(tiny, COUNTS, experts=2, width=1.0)
    batch = batch_of([0, 1, 2, 2])
    features = method.backbone(batch.images)
    outputs = method.head(features)
    assert outputs.shape == (2, 4, 4)
    alone = [super(ExpertEnsemble, method).criterion(z, batch.labels) for z in outputs]
    torch.testing.assert_close(method.loss(batch), torch.stack(alone).mean())
    torch.testing.assert_close(
        method.eval()(batch.images), method.head(method.backbone(batch.images)).mean(0)
    )


def test_experts_learn_from_their_own_loss_only():
    method = CrossEntropyExperts(tiny, COUNTS, experts=2)
    batch = batch_of([0, 1, 2])
    first = method.head(method.backbone(batch.images))[0]
    first.sum().backward()
    one, other = method.backbone.stages["experts"].each
    assert all(p.grad is not None for p in one.parameters())
    assert all(p.grad.eq(0).all() for p in other.parameters())
    assert all(p.grad is not None for p in method.backbone.stages["layer1"].parameters())


def test_experts_take_no_auxiliary_heads():
    with pytest.raises(BenchError, match="auxiliary"):
        CrossEntropyExperts(tiny, COUNTS, auxiliary=("arcface",))


def test_ride_reweights_and_warms_the_classes_from_four_fifths_of_the_epochs():
    method = ride()
    for epoch, on in ((0, False), (159, False), (160, True), (199, True), (0, False)):
        method.before_epoch(Clock(epoch, 200, 0, 1))
        assert method.temperature.now.eq(1).all() != on
        assert method.class_weights.now.eq(1).all() != on
        if on:
            torch.testing.assert_close(method.temperature.now, ride_temperatures(method.class_counts, 0.05))


def test_ride_temperatures_follow_the_frequency():
    counts = torch.tensor([0, 100, 900])
    assert ride_temperatures(counts, 0.0).tolist() == [1, 1, 1]
    none, rare, frequent = ride_temperatures(counts, 0.05).tolist()
    assert 0 < none < rare < frequent == 1
    assert rare == pytest.approx((0.05 * 0.3 + 0.95) / (0.05 * 2.7 + 0.95))


def test_ride_without_diversity_is_the_sum_of_ldam():
    method, batch = ride(diversity=0.0), batch_of([0, 1, 2, 3, 2])
    outputs = method.head(method.backbone(batch.images))
    alone = [super(ExpertEnsemble, method).criterion(z, batch.labels) for z in outputs]
    torch.testing.assert_close(method.criterion(outputs, batch.labels), torch.stack(alone).sum())


def test_ride_rewards_experts_that_disagree():
    method = ride(reweight_from=None)
    agree = torch.rand(1, 5, 4).expand(3, -1, -1)
    labels = torch.tensor([0, 1, 2, 3, 2])
    calm = ride(diversity=0.0)
    torch.testing.assert_close(method.criterion(agree, labels), calm.criterion(agree, labels))
    differ = torch.rand(3, 5, 4)
    assert method.criterion(differ, labels) < calm.criterion(differ, labels)


def test_ride_scores_are_the_mean_of_scaled_cosines():
    method = ride().eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        cosines = method.head(method.backbone(images))
        torch.testing.assert_close(method(images), 30 * cosines.mean(0))
    assert cosines.abs().max() <= 1
