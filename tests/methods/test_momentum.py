"""KCL, TSC, PaCo and GPaCo: how positives are drawn, targets spread, and stages handed on."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import backbones, registry
from bench.errors import BenchError
from bench.method import Batch, Clock
from bench.randomness import generator
from methods.kcl import kcl_loss, pick
from methods.paco import paco_loss
from methods.parts.weights import log_class_prior
from methods.tsc import assign, follow_centroids, spread, uniformity

torch.set_num_threads(1)

COUNTS = np.array([40, 5, 120, 12])
CLOCK = Clock(0, 10, 0, 100)
tiny = partial(backbones.create, "resnet8_cifar")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(name, **params):
    entry = registry.find(name)
    return entry.build(tiny, COUNTS, **entry.hyperparameters(**params).model_dump()).train()


def batch_of(method, labels):
    size = len(labels)
    draws = {name: torch.from_numpy(d) for name, d in method.draws(generator("draws"), size).items()}
    views = tuple(torch.randn(size, 3, 16, 16) for _ in method.views)
    return Batch(views, torch.tensor(labels), torch.arange(size), draws)


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


# -- positives ----------------------------------------------------------------------------------------
def test_positives_are_drawn_without_repeats_and_evenly():
    positive = torch.zeros(20_000, 12, dtype=torch.bool)
    positive[:, [1, 4, 5, 9, 11]] = True
    picked = pick(positive, torch.rand(20_000, 3))
    assert picked.sum(dim=1).eq(3).all()
    assert not (picked & ~positive).any()
    share = picked[:, positive[0]].float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((5,), 0.6), rtol=0, atol=0.02)


def test_where_there_are_fewer_positives_all_are_taken():
    positive = torch.tensor([[False, False, False], [True, False, True]])
    draws = torch.tensor([[0.0, 0.0, 0.0], [math.nextafter(1, 0)] * 3])
    assert torch.equal(pick(positive, draws), positive)


def test_an_empty_slot_repels_and_is_nobodys_positive():
    method = make("kcl", queue=32)
    assert method.queue.labels.eq(-1).all()
    query, key = unit(2, 128), unit(2, 128)
    loss = kcl_loss(query, key, method.queue.keys, torch.zeros(2, 32), 0.07)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ method.queue.keys.T], dim=1) / 0.07
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)))


@pytest.mark.parametrize("name", ["kcl", "paco", "gpaco"])
def test_keys_enter_the_queue_after_the_step(name):
    method = make(name, queue=16)
    batch, queued = batch_of(method, [0, 1, 2, 2]), method.queue.keys.clone()
    method.loss(batch).backward()
    assert torch.equal(method.queue.keys, queued)
    method.after_step(CLOCK, batch)
    assert method.queue.labels[:4].tolist() == [0, 1, 2, 2]
    assert torch.equal(method.queue.keys[4:], queued[4:])
    assert not torch.equal(method.queue.keys[:4], queued[:4])


@pytest.mark.parametrize("name", ["kcl", "paco"])
def test_the_key_encoder_follows_without_gradient(name):
    method = make(name, queue=16, momentum=0.9)
    batch = batch_of(method, [0, 1, 2, 2])
    method.loss(batch).backward()
    slow = list(method.key_encoder.parameters())
    before = [p.clone() for p in slow]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.after_step(CLOCK, batch)
    for now, old in zip(slow, before, strict=True):
        assert now.grad is None
        torch.testing.assert_close(now, old + 0.1)


# -- targets ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("classes", "dim"), [(2, 4), (3, 2), (10, 128), (100, 128)])
def test_few_targets_form_a_regular_simplex(classes, dim):
    targets = spread(unit(classes, dim))
    cosines = (targets @ targets.T)[~torch.eye(classes, dtype=torch.bool)]
    torch.testing.assert_close(cosines, torch.full_like(cosines, -1 / (classes - 1)), rtol=0, atol=1e-4)
    # the convexity bound on the authors' objective, which no other points reach
    bound = math.log(math.exp(1 / 0.07) + (classes - 1) * math.exp(-1 / (classes - 1) / 0.07))
    assert uniformity(targets.double()).item() == pytest.approx(bound, abs=1e-6)


def test_many_targets_are_spread_no_worse_than_by_the_authors_optimiser():
    start = torch.randn(40, 16, dtype=torch.float64)
    free = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=1e-3)
    for _ in range(3000):
        optimizer.zero_grad()
        uniformity(F.normalize(free, dim=1)).backward()
        optimizer.step()
    theirs = uniformity(F.normalize(free.detach(), dim=1))
    start = F.normalize(start, dim=1)
    ours = uniformity(spread(start))
    assert ours - uniformity(start) < 0.99 * (theirs - uniformity(start))


def test_each_class_gets_a_target_and_together_the_nearest():
    targets = spread(unit(5, 8))
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(assign(targets[order] + 0.1 * unit(5, 8), targets), order)


def test_centroids_of_absent_classes_stay():
    centroids, query = unit(3, 4), unit(4, 4)
    moved = follow_centroids(centroids, query, torch.tensor([0, 0, 2, 0]))
    assert torch.equal(moved[1], centroids[1])
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(moved[2], F.normalize(0.9 * centroids[2] + 0.1 * query[2], dim=0))


def test_a_target_pulls_by_its_weight_and_counts_as_one():
    query, key, queue, targets = unit(1, 4), unit(1, 4), unit(3, 4), unit(2, 4)
    weights = torch.tensor([[1.0, 0, 0, 0, 0.2]])  # one queued positive, and the second target
    loss = kcl_loss(query, key, torch.cat([queue, targets]), weights, 0.1)
    log_p = (torch.cat([key, queue, targets]) @ query[0] / 0.1).log_softmax(0)
    torch.testing.assert_close(loss, -(log_p[0] + log_p[1] + 0.2 * log_p[5]) / 3)


def test_tsc_goes_on_from_kcl_with_new_targets_that_are_kept():
    parent, method = make("kcl", queue=16), make("tsc", queue=16)
    batch = batch_of(parent, [0, 1, 2, 2])
    parent.loss(batch)
    parent.after_step(CLOCK, batch)
    method.start_from(parent)
    mine = method.state_dict()
    for name, tensor in parent.state_dict().items():
        torch.testing.assert_close(mine[name], tensor)
    method.before_epoch(CLOCK)
    torch.testing.assert_close(method.targets @ method.targets.T, torch.eye(4) * 4 / 3 - 1 / 3)
    targets = method.targets.clone()
    method.before_epoch(Clock(1, 10, 10, 100))
    assert torch.equal(method.targets, targets)
    assert method.loss(batch_of(method, [0, 1, 2, 2])).isfinite()


def test_tsc_refuses_another_parent():
    with pytest.raises(BenchError, match="starts from kcl"):
        make("tsc").start_from(make("paco"))
    with pytest.raises(BenchError, match="queue"):
        make("tsc", queue=16).start_from(make("kcl", queue=32))


@pytest.mark.parametrize(("first", "second"), [("kcl", "kcl_linear"), ("tsc", "tsc_linear")])
def test_the_linear_stage_trains_a_classifier_on_the_frozen_query_encoder(first, second):
    parent, method = make(first), make(second)
    assert registry.find(second).build.usual_parent == first
    method.start_from(parent)
    for mine, its in zip(method.backbone.parameters(), parent.backbone.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
    groups = method.param_groups()
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in method.head.parameters()}
    assert method.sampler(0, 10) == "class_balanced"


# -- PaCo ---------------------------------------------------------------------------------------------
def test_without_weight_on_samples_paco_is_adjusted_cross_entropy_with_more_negatives():
    logits, features = torch.randn(3, 4), unit(8, 6)
    labels = torch.tensor([0, 2, 2, 0, 2, 2, 1, 3])
    prior = log_class_prior(torch.from_numpy(COUNTS))
    others = (features[:3] @ features.T / 0.05).masked_fill(torch.eye(3, 8, dtype=torch.bool), -torch.inf)
    expected = F.cross_entropy(torch.cat([logits + prior, others], dim=1), labels[:3])
    torch.testing.assert_close(paco_loss(logits + prior, features, labels, 0.0, 0.05), expected)


@pytest.mark.parametrize(("name", "anchors"), [("paco", 1), ("gpaco", 2)])
def test_the_keys_are_anchors_in_gpaco_alone(name, anchors):
    method = make(name, queue=16)
    batch = batch_of(method, [0, 1, 2, 2])
    logits, _, key = method.encode(*batch.views)
    assert len(logits) == 4 * anchors
    assert key.requires_grad == (anchors == 2)


def test_scores_are_the_classifiers_without_the_prior():
    for name in ("paco", "gpaco"):
        method, images = make(name, queue=16).eval(), torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(method(images), method.head(method.backbone(images)))
        assert method.scores == "balanced"
