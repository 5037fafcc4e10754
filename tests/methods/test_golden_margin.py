"""Margin heads against values of their authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_values import check, golden

from bench.backbones import create
from bench.method import Clock
from bench.registry import find
from methods.parts.margin import (
    ArcFaceHead,
    CosFaceHead,
    SphereFaceHead,
    arcface_target,
    sphereface_psi,
)


def check_head(head, g):
    head.weight.data = g["in_weight"].clone()
    check(
        lambda f: F.cross_entropy(head.margin_logits(f, g["in_labels"]), g["in_labels"]),
        g["in_feats"],
        g["out_loss"],
        g["out_grad_feats"],
        grad_rtol=5e-3,
    )
    torch.testing.assert_close(head.weight.grad, g["out_grad_weight"], rtol=5e-3, atol=1e-6)
    logits = head.margin_logits(g["in_feats"], g["in_labels"]).detach()
    torch.testing.assert_close(logits, g["out_train_logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("arcface_s30_m05", ArcFaceHead), ("cosface_s30_m035", CosFaceHead), ("cosface_s30_m04", CosFaceHead)],
)
def test_arcface_and_cosface(name, kind):
    g, settings = golden(f"classic_{name}_c10")
    check_head(kind(32, 10, settings["m"], settings["s"]), g)


@pytest.mark.parametrize("margin", [2, 3, 4])
@pytest.mark.parametrize("when", ["iter1", "lammin"])
def test_sphereface(margin, when):
    g, settings = golden(f"classic_sphereface_m{margin}_{when}_c10")
    head = SphereFaceHead(32, 10, float(margin), scale=1.0)
    head.advance(Clock(0, 1, settings["iteration_1based"] - 1, 10**6))
    torch.testing.assert_close(head.annealed.double(), g["out_lambda"].double(), rtol=1e-6, atol=0)
    check_head(head, g)


@pytest.mark.parametrize("name", ["arcface_insightface_s64_m05", "cosface_insightface_s64_m04"])
def test_face_recognition_settings(name):
    g, settings = golden(f"classic_{name}_c10")
    at_label = F.one_hot(g["in_labels"], 10).bool()

    def logits(cos):
        target = arcface_target(cos, settings["m"]) if name.startswith("arcface") else cos - settings["m"]
        return settings["s"] * torch.where(at_label, target, cos)

    check(
        lambda cos: F.cross_entropy(logits(cos), g["in_labels"]),
        g["in_cosine"],
        g["out_loss"],
        g["out_grad_cosine"],
        grad_rtol=5e-3,
    )
    torch.testing.assert_close(logits(g["in_cosine"]), g["out_train_logits"], rtol=1e-4, atol=1e-4)


def test_arcface_falls_back_beyond_the_last_angle():
    g, settings = golden("classic_arcface_branches")
    target = settings["s"] * arcface_target(g["in_cosine_target"].float(), settings["m"])
    torch.testing.assert_close(target, g["out_target_logit"].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("margin", [2, 3, 4])
def test_psi_falls_monotonically(margin):
    g, _ = golden("classic_sphereface_psi")
    ours = sphereface_psi(g["in_theta"].double().cos(), margin)
    torch.testing.assert_close(ours, g[f"out_psi_m{margin}"].double(), rtol=1e-6, atol=1e-9)
    dense = sphereface_psi(torch.linspace(0.001, 3.141, 500).double().cos(), margin)
    assert (dense.diff() < 1e-9).all()


@pytest.mark.parametrize("kind", [ArcFaceHead, CosFaceHead, SphereFaceHead])
def test_gradients_are_finite_on_and_against_the_class_vector(kind):
    head = kind(4, 3, 4.0 if kind is SphereFaceHead else 0.5, 30.0)
    features = torch.stack([head.weight[0].detach(), -head.weight[0].detach()]).requires_grad_()
    F.cross_entropy(head.margin_logits(features, torch.tensor([0, 0])), torch.tensor([0, 0])).backward()
    assert features.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_an_auxiliary_margin_head_adds_its_cross_entropy_and_leaves_the_scores():
    counts = np.array([30, 20, 10])
    torch.manual_seed(0)
    method = find("ce").build(
        lambda **_: create("resnet8_cifar"), counts, auxiliary=("arcface", "sphereface")
    )
    features, labels = torch.randn(6, 64), torch.tensor([0, 1, 2, 0, 1, 0])
    alone = method.criterion(method.head(features), labels)
    added = [F.cross_entropy(h.margin_logits(features, labels), labels) for h in method.auxiliary.values()]
    torch.testing.assert_close(method.loss_of_features(features, labels), alone + sum(added))
    before = method.auxiliary["sphereface"].annealed.clone()
    method.before_step(Clock(5, 10, 500, 1000), None)
    assert method.auxiliary["sphereface"].annealed < before
