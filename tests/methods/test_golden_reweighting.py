"""Losses that shift, scale or weigh logits, against values of the authors' code."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from golden_values import check, golden

from bench import backbones, registry
from bench.errors import BenchError
from bench.method import Batch, Clock
from methods.gcl import cloud_sizes, clouded_cosines, margin_logits
from methods.influence_balanced import ib_loss
from methods.lade import lade_bound
from methods.parts.weights import (
    DeferredWeights,
    effective_number_weights,
    log_class_prior,
    power_weights,
    weighted_cross_entropy,
)
from methods.vs import class_temperatures, vs_logits

torch.set_num_threads(1)

COUNTS = np.array([40, 5, 120, 12])
CASES = ["vs_g015_t125", "vs_g005_t075", "vs_g02_t00", "vs_g00_t10", "cdt_g02"]


@pytest.mark.parametrize("case", CASES)
def test_vs_and_cdt(case):
    g, hp = golden(f"classic_{case}_c10")
    temperatures = class_temperatures(g["in_cls_num"], hp["gamma"])
    shifts = hp.get("tau", 0.0) * log_class_prior(g["in_cls_num"])
    ones = torch.ones(10)

    def loss(logits):
        return weighted_cross_entropy(vs_logits(logits, temperatures, shifts), g["in_labels"], ones)

    check(loss, g["in_logits"], g["out_loss"], g["out_grad_logits"])


def test_temperatures_do_not_need_sorted_classes():
    counts = torch.tensor([5, 500, 50])
    torch.testing.assert_close(class_temperatures(counts, 0.5), torch.tensor([10.0, 1.0, 10**0.5]))


def test_lade_bound():
    g, hp = golden("classic_lade_reg_c10")
    log_prior = log_class_prior(g["in_cls_num"])

    def loss(logits):
        return -lade_bound(logits, g["in_labels"], log_prior, hp["remine_lambda"])

    check(loss, g["in_logits"], g["out_loss"], g["out_grad_logits"])


def test_lade_total():
    g, hp = golden("classic_lade_total_c10")
    log_prior = log_class_prior(g["in_cls_num"])

    def loss(logits):
        adjusted = weighted_cross_entropy(logits + log_prior, g["in_labels"], torch.ones(10))
        return adjusted - hp["alpha"] * lade_bound(logits, g["in_labels"], log_prior, hp["remine_lambda"])

    check(loss, g["in_logits"], g["out_loss"], g["out_grad_logits"])


@pytest.mark.parametrize("case", ["ib", "ib_focal"])
def test_influence_balanced(case):
    g, hp = golden(f"classic_{case}_c10")
    weights = DeferredWeights(g["in_cls_num"], start=0.5, beta=1.0).balanced
    torch.testing.assert_close(weights, g["in_class_weight"].float())

    def loss(logits, features):
        return ib_loss(logits, features, g["in_labels"], weights, hp["alpha"], hp["gamma"] or 0.0)

    logits, features = g["in_logits"], g["in_feats"]
    check(lambda z: loss(z, features), logits, g["out_loss"], g["out_grad_logits"])
    check(lambda f: loss(logits, f), features, g["out_loss"], g["out_grad_feats"])


@pytest.mark.parametrize(
    ("case", "weights_of"),
    [
        ("g10", partial(effective_number_weights, beta=1.0)),
        ("g10", partial(power_weights, exponent=1.0)),
        ("g05", partial(power_weights, exponent=0.5)),
    ],
)
def test_cost_sensitive_cross_entropy(case, weights_of):
    g, _ = golden(f"classic_csce_{case}_c10")
    weights = weights_of(g["in_cls_num"])

    def loss(logits):
        return weighted_cross_entropy(logits, g["in_labels"], weights)

    check(loss, g["in_logits"], g["out_loss"], g["out_grad_logits"])


def test_inverse_frequency_is_the_limit_of_the_effective_number():
    counts = torch.tensor([3, 700, 41])
    limit = effective_number_weights(counts, 1.0)
    torch.testing.assert_close(limit, effective_number_weights(counts, 1 - 1e-9))
    torch.testing.assert_close(limit.sum(), torch.tensor(3.0))


def test_gcl():
    g, hp = golden("classic_gcl_c10")
    cloud = hp["noise_mul"] * cloud_sizes(g["in_cls_num"])

    def loss(cosines):
        clouded = clouded_cosines(cosines, g["in_noise"], cloud)
        logits = margin_logits(clouded, g["in_labels"], hp["m"], hp["s"])
        return weighted_cross_entropy(logits, g["in_labels"], torch.ones(10))

    check(loss, g["in_cosine"], g["out_loss"], g["out_grad_cosine"])


def test_gcl_margin_is_at_the_label_only():
    cosines, labels = torch.zeros(2, 3), torch.tensor([2, 0])
    expected = torch.tensor([[0.0, 0.0, -2.0], [-2.0, 0.0, 0.0]])
    torch.testing.assert_close(margin_logits(cosines, labels, 0.1, 20.0), expected)


def test_equal_counts_have_no_cloud():
    assert torch.equal(cloud_sizes(torch.tensor([7, 7, 7])), torch.zeros(3))


def build(name, **params):
    entry = registry.find(name)
    make_backbone = partial(backbones.create, "resnet8_cifar")
    return entry.build(make_backbone, COUNTS, **entry.hyperparameters(**params).model_dump())


def test_influence_counts_from_the_middle_of_the_run():
    ib = build("ib")
    features, labels = torch.rand(4, ib.backbone.num_features), torch.tensor([0, 1, 1, 3])
    logits = ib.head(features)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    balanced = ib_loss(logits, features, labels, ib.class_weights.balanced, 1000.0, 0.0)
    assert not torch.isclose(plain, balanced)
    for epoch, expected in [(99, plain), (100, balanced)]:
        ib.before_epoch(Clock(epoch, 200, 0, 1))
        torch.testing.assert_close(ib.loss_of_features(features, labels), expected)


def test_gcl_retraining_moves_the_first_stage_classifier_alone():
    parent, child = build("gcl_stage_1"), build("gcl")
    parent.backbone(torch.randn(8, 3, 16, 16))  # statistics of its own
    child.start_from(parent)
    torch.testing.assert_close(child.head.weight, parent.head.weight)
    before = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    draws = {k: torch.from_numpy(v) for k, v in child.draws(np.random.default_rng(0), 4).items()}
    batch = Batch((torch.randn(4, 3, 16, 16),), torch.tensor([0, 1, 2, 3]), torch.arange(4), draws)
    optimizer = torch.optim.SGD(child.train().param_groups(), lr=0.1)
    child.loss(batch).backward()
    optimizer.step()
    changed = {name for name, tensor in child.state_dict().items() if not tensor.equal(before[name])}
    assert changed == {"head.weight"}


def test_gcl_retraining_refuses_another_parent():
    with pytest.raises(BenchError, match="starts from gcl_stage_1, not from CrossEntropy"):
        build("gcl").start_from(build("ce"))
