"""Methods of several branches, experts or networks: what their golden losses do not show."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import backbones, registry
from bench.backbones import count_parameters
from bench.errors import BenchError
from bench.method import Batch, Clock
from bench.randomness import generator
from methods.bbn import bbn_alpha
from methods.causal_tde import causal_logits, tde_logits
from methods.ncl import collaborative_loss, ncl_loss
from methods.parts.branches import TwoBranches
from methods.parts.mixing import mixup
from methods.parts.weights import log_class_prior
from methods.reslt import rank_groups, reslt_loss
from methods.sade import sade_adjustments
from methods.shike import FusedExperts, hardest_negative_suppression

torch.set_num_threads(1)

COUNTS = np.array([40, 5, 120, 12])
tiny = partial(backbones.create, "resnet8_cifar")
LABELS = [0, 1, 2, 3, 2, 2]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(name, **params):
    entry = registry.find(name)
    return entry.build(tiny, COUNTS, **entry.hyperparameters(**params).model_dump())


def batch_for(method, labels=LABELS, side=16):
    labels = torch.tensor(labels)

    def views():
        return tuple(torch.randn(len(labels), 3, side, side) for _ in method.views)

    drawn = method.draws(generator("test"), len(labels))
    draws = {name: torch.from_numpy(array) for name, array in drawn.items()}
    positions = torch.arange(len(labels))
    extra = Batch(views(), labels.flip(0), positions) if method.extra_sampler else None
    return Batch(views(), labels, positions, draws, extra)


# -- SADE ---------------------------------------------------------------------------------------------
def test_sade_gives_the_rarest_class_the_prior_of_the_most_frequent():
    log_prior = log_class_prior(torch.tensor(COUNTS))
    ordinary, balanced, inverse = sade_adjustments(torch.tensor(COUNTS), 2.0)
    assert ordinary.eq(0).all()
    torch.testing.assert_close(balanced, log_prior)
    reversed_ranks = log_prior[[3, 2, 1, 0]]  # 40, 5, 120, 12 stand in for 12, 120, 5, 40
    torch.testing.assert_close(inverse, log_prior - 2 * reversed_ranks)


def test_sade_adjustments_go_with_their_classes():
    counts, shuffled = torch.tensor([500, 80, 33, 7, 2]), torch.tensor([3, 0, 4, 2, 1])
    expected = sade_adjustments(counts, 2.0)[:, shuffled]
    torch.testing.assert_close(sade_adjustments(counts[shuffled], 2.0), expected)


def test_sade_is_three_experts():
    with pytest.raises(BenchError, match="three experts, got experts: 2"):
        build("sade", experts=2)


@pytest.mark.parametrize("name", ["sade", "balpoe"])
def test_scores_of_adjusted_experts_are_the_mean_of_unadjusted_scaled_cosines(name):
    method = build(name).eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        cosines = method.head(method.backbone(images))
        torch.testing.assert_close(method(images), 30 * cosines.mean(0))
    assert cosines.abs().max() <= 1


# -- BalPoE -------------------------------------------------------------------------------------------
def test_balpoe_is_of_full_width_and_balanced_on_average():
    method = build("balpoe")
    assert method.backbone.num_features == tiny().num_features
    torch.testing.assert_close(method.adjustments.mean(0), log_class_prior(method.class_counts))


def test_balpoe_wants_a_tau_for_each_expert():
    with pytest.raises(BenchError, match="2 taus for 3 experts"):
        build("balpoe", taus=(0.0, 1.0))
    assert build("balpoe", taus=(0.0, 1.0), experts=2).adjustments.shape == (2, 4)


def test_balpoe_sees_blended_images_under_both_labels():
    method = build("balpoe").eval()  # batch norm would tell batches apart
    batch = batch_for(method)
    order, weight = batch.draws["mix_order"].argsort(), batch.draws["mix_weight"][0]
    mix = mixup(batch.images, batch.labels, batch.images[order], batch.labels[order], weight.expand(6))
    outputs = 30 * method.head(method.backbone(mix.images)) + method.adjustments[:, None]
    both = [F.cross_entropy(outputs.flatten(0, 1), y.repeat(3)) for y in (mix.labels, mix.partners)]
    torch.testing.assert_close(method.loss(batch), weight * both[0] + (1 - weight) * both[1])


# -- BBN and its backbone -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet10t"])
def test_two_branches_double_the_last_block(name):
    make = partial(backbones.create, name)
    both, whole = TwoBranches(make).eval(), make()
    last = whole.stages[whole.stage_names[-1]][-1]
    assert count_parameters(both) == count_parameters(whole) + count_parameters(last)
    images = torch.randn(2, 3, 32, 32)
    features = both(images)
    assert features.shape == (2, 2 * whole.num_features)
    torch.testing.assert_close(features, torch.cat([both.branch(0, images), both.branch(1, images)], 1))
    first, second = features.chunk(2, dim=1)
    assert not torch.allclose(first, second)


def test_two_branches_need_residual_blocks():
    with pytest.raises(BenchError, match="choose a ResNet"):
        TwoBranches(partial(backbones.create, "convnext_atto"))


def test_bbn_turns_from_the_ordinary_batch_to_the_reversed_one():
    assert [bbn_alpha(e, 200) for e in (0, 100)] == [1, 0.75]
    assert bbn_alpha(199, 200) == pytest.approx(0.009975)
    assert bbn_alpha(179, 180) == pytest.approx(1 - (179 / 200) ** 2)
    method = build("bbn")
    batch = batch_for(method)
    for alpha, silent in ((1.0, 1), (0.0, 0)):
        method.zero_grad()
        method.alpha.fill_(alpha)
        method.loss(batch).backward()
        strengths = [sum(p.grad.abs().sum() for p in b.parameters()) for b in method.backbone.branches]
        assert strengths[silent] == 0
        assert strengths[1 - silent] > 0


def test_bbn_follows_the_clock_and_scores_without_it():
    method = build("bbn").eval()
    images = torch.randn(2, 3, 16, 16)
    before = method(images)
    method.before_epoch(Clock(5, 10, 0, 1))
    assert method.alpha == 0.75
    torch.testing.assert_close(method(images), before)


# -- Causal TDE ---------------------------------------------------------------------------------------
def test_tde_takes_off_what_lies_along_the_mean_feature():
    weight, mean = torch.randn(4, 8), torch.rand(8)
    along = tde_logits(mean[None], weight, mean, 2, 16.0, effect=1.0)
    torch.testing.assert_close(along, torch.zeros(1, 4), atol=1e-5, rtol=0)
    features = torch.rand(3, 8)
    plain = causal_logits(features, weight, 2, 16.0)
    torch.testing.assert_close(tde_logits(features, weight, mean, 2, 16.0, effect=0.0), plain)
    untrained = tde_logits(features, weight, torch.zeros(8), 2, 16.0, effect=3.0)
    torch.testing.assert_close(untrained, plain)
    once, scaled = (tde_logits(features, weight, m, 2, 16.0, 1.5) for m in (mean, 7 * mean))
    torch.testing.assert_close(once, scaled)
    assert not torch.allclose(once, plain)


def test_tde_keeps_a_running_sum_of_mean_features_in_training_only():
    method = build("causal_tde", mean_momentum=0.5)
    expected = torch.zeros(method.backbone.num_features)
    for _ in range(2):
        batch = batch_for(method)
        method.loss(batch)
        expected = 0.5 * expected + method.backbone(batch.images).mean(0)
    torch.testing.assert_close(method.mean_feature, expected.detach())
    method.eval()(batch.images)
    torch.testing.assert_close(method.mean_feature, expected.detach())


def test_tde_backbone_and_scores_are_options():
    assert build("causal_tde").backbone.num_features == 128
    assert build("causal_tde", two_branches=False).backbone.num_features == 64
    assert build("causal_tde").scores == "balanced"
    assert build("causal_tde", effect=0.0).scores == "train_prior"
    with pytest.raises(BenchError, match="128 features do not divide into heads: 3"):
        build("causal_tde", heads=3)


# -- NCL ----------------------------------------------------------------------------------------------
def test_ncl_networks_share_nothing_and_are_averaged():
    method = build("ncl").eval()
    assert count_parameters(method) == 3 * count_parameters(method.networks[0])
    images = torch.randn(2, 3, 16, 16)
    alone = torch.stack([network(images) for network in method.networks])
    assert not torch.allclose(alone[0], alone[1])
    torch.testing.assert_close(method(images), alone.mean(0))


def test_ncl_without_masking_is_its_loss_twice():
    logits, labels, log_counts = torch.randn(3, 5, 4), torch.tensor([0, 1, 2, 3, 3]), torch.rand(4)
    everything = ncl_loss(logits, labels, log_counts, 4, 0.6)
    torch.testing.assert_close(everything, 2 * collaborative_loss(logits + log_counts, labels, 0.6))
    assert not torch.allclose(ncl_loss(logits, labels, log_counts, 2, 0.6), everything)


def test_ncl_pulls_teachers_too_and_only_where_networks_differ():
    labels = torch.tensor([0, 1])
    agree = torch.randn(1, 2, 4).expand(3, -1, -1)
    own = collaborative_loss(agree, labels, 0.0)
    torch.testing.assert_close(collaborative_loss(agree, labels, 0.6), own, atol=1e-6, rtol=1e-6)
    pair = torch.randn(2, 2, 4)
    p = pair.softmax(-1)
    symmetric = ((p[0] - p[1]) * (p[0].log() - p[1].log())).sum() / 2  # KL both ways, mean of 2 images
    ce = sum(F.cross_entropy(z, labels) for z in pair)
    torch.testing.assert_close(collaborative_loss(pair, labels, 0.6), ce + 0.6 * symmetric)


def test_ncl_hard_classes_are_a_share_of_all():
    assert build("ncl", hardest=0.75).hard_classes == 3
    assert build("ncl", hardest=0.1).hard_classes == 2  # a class alone has no rival
    with pytest.raises(BenchError, match="at least 2"):
        build("ncl", networks=1)


# -- ResLT --------------------------------------------------------------------------------------------
def test_reslt_groups_classes_by_rank_not_by_number():
    counts = torch.tensor([30, 500, 2, 90, 7])
    everyone, medium, tail = rank_groups(counts, (0.0, 0.4, 0.8)).bool().tolist()
    assert everyone == [True] * 5
    assert medium == [True, False, True, False, True]
    assert tail == [False, False, True, False, False]
    cifar = torch.tensor([int(500 * 0.01 ** (i / 99)) for i in range(100)])
    assert rank_groups(cifar, (0.0, 0.35, 0.7)).argmax(1).tolist() == [0, 35, 70]  # the authors' numbers


def test_reslt_loss_is_the_mean_over_branches_and_their_images():
    logits, labels = torch.randn(3, 5, 4), torch.tensor([0, 1, 2, 3, 3])
    members = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1]]).float()
    own = [
        F.cross_entropy(logits[0], labels, reduction="sum"),
        F.cross_entropy(logits[1, [0, 3, 4]], labels[[0, 3, 4]], reduction="sum"),
        F.cross_entropy(logits[2, 3:], labels[3:], reduction="sum"),
    ]
    expected = 0.9 * sum(own) / (5 + 3 + 2) + 0.1 * F.cross_entropy(logits.sum(0), labels)
    torch.testing.assert_close(reslt_loss(logits, labels, members, 0.9), expected, atol=1e-5, rtol=1e-5)


def test_reslt_branches_differ_by_their_batch_norm_and_are_summed():
    method = build("reslt").eval()
    images = torch.randn(2, 3, 16, 16)
    apart = method.branches(images)
    torch.testing.assert_close(apart[0], apart[2])  # as initialised
    with torch.no_grad():
        method.norms[2].weight.mul_(2)
    changed = method.branches(images)
    torch.testing.assert_close(changed[:2], apart[:2])
    assert not torch.allclose(changed[2], apart[2])
    torch.testing.assert_close(method(images), changed.sum(0))


# -- GLMC ---------------------------------------------------------------------------------------------
def test_glmc_mixes_both_views_with_the_extra_batch_by_one_weight():
    method = build("glmc")
    batch = batch_for(method)
    batch.draws["mix_weight"].fill_(0.75)
    batch.draws["mix_centre"].fill_(0.5)
    blended, pasted = method.mix(batch)
    expected = 0.75 * batch.views[0] + 0.25 * batch.extra.views[0]
    torch.testing.assert_close(blended.images, expected)
    box = torch.zeros(16, 16, dtype=torch.bool)
    box[4:12, 4:12] = True
    torch.testing.assert_close(pasted.images[..., box], batch.extra.views[1][..., box])
    torch.testing.assert_close(pasted.images[..., ~box], batch.views[1][..., ~box])
    for mix in (blended, pasted):
        assert torch.equal(mix.labels, batch.labels)
        assert torch.equal(mix.partners, batch.extra.labels)
        assert mix.weights.eq(0.75).all()
    batch.draws["mix_centre"].fill_(0)  # most of the box is outside; the labels' weight stays
    assert method.mix(batch)[1].weights.eq(0.75).all()


def test_glmc_moves_from_the_plain_head_to_the_scoring_one():
    method = build("glmc", consistency=0.0)
    for epoch, alpha in ((0, 1.0), (5, 0.75), (9, 0.19)):
        method.before_epoch(Clock(epoch, 10, 0, 1))
        assert method.alpha.item() == pytest.approx(alpha)
    batch = batch_for(method)
    for alpha, silent, loud in ((1.0, "head", "plain_head"), (0.0, "plain_head", "head")):
        method.zero_grad()
        method.alpha.fill_(alpha)
        method.loss(batch).backward()
        assert getattr(method, silent).weight.grad.eq(0).all()
        assert getattr(method, loud).weight.grad.abs().sum() > 0


def test_glmc_rewards_views_that_agree():
    method = build("glmc").eval()
    batch = batch_for(method)
    ignored, wanted = build("glmc", consistency=0.0).eval(), method
    ignored.load_state_dict(wanted.state_dict())
    same = Batch((batch.images, batch.images), batch.labels, batch.positions, batch.draws, batch.extra)
    same.draws["mix_weight"].fill_(1.0)
    with torch.no_grad():  # now what is predicted of a view is its own projection
        wanted.predictor.weight.copy_(torch.eye(128))
        wanted.predictor.bias.zero_()
    torch.testing.assert_close(wanted.loss(same), ignored.loss(same) - 4 * 2)


# -- SHIKE --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "depths"), [("resnet20_cifar", [2, 1, 2, 1]), ("resnet10t", [3, 2, 1, 3])])
def test_fused_experts_start_at_different_depths(name, depths):
    experts = FusedExperts(partial(backbones.create, name), 4).eval()
    convolutions = [sum(isinstance(m, torch.nn.Conv2d) for m in part) for part in experts.shallow]
    assert convolutions == depths
    images = torch.randn(2, 3, 32, 32)
    maps = experts.feature_map(images)
    assert maps.shape[:3] == (4, 2, experts.num_features)
    torch.testing.assert_close(experts(images), maps.mean(dim=(3, 4)))


def test_fused_experts_multiply_their_shallow_and_deep_parts():
    experts = FusedExperts(tiny, 2).eval()
    with torch.no_grad():
        for module in experts.shallow[0]:
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.zero_()  # the shallow part is 0 everywhere
    features = experts(torch.randn(2, 3, 16, 16))
    assert features[0].eq(0).all()
    assert features[1].abs().sum() > 0


def test_hardest_negative_has_the_mean_score_and_the_others_the_greatest():
    logits = torch.tensor([[[9.0, 3.0, 1.0, 0.0]], [[9.0, 1.0, 1.5, -2.0]]])
    own = torch.tensor([[-30.0, 3.0, 1.0, 0.0], [-30.0, 1.0, 1.5, -2.0]]).log_softmax(-1)
    target = torch.tensor([0.0, 2.0, 1.5, 0.0]).softmax(-1)  # class 1 is hardest on average
    expected = sum((target * (target.log() - q)).sum() for q in own) / 4
    torch.testing.assert_close(hardest_negative_suppression(logits, torch.tensor([0])), expected)


def test_shike_retrains_new_classifiers_on_its_frozen_experts():
    first = build("shike_stage_1")
    second = build("shike")
    second.start_from(first)
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(second.eval().backbone(images), first.eval().backbone(images))
    assert not torch.allclose(second(images), first(images))
    trained = {id(p) for group in second.param_groups() for p in group["params"]}
    assert trained == {id(p) for p in second.head.parameters()}
    with pytest.raises(BenchError, match="as many experts"):
        build("shike", experts=2).start_from(first)
    with pytest.raises(BenchError, match="not from this CrossEntropy"):
        second.start_from(build("ce"))
