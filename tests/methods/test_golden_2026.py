"""Losses of the methods of 2022 to 2025 against values of their authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_values import check, golden
from torch import nn

from bench.cell import Sharpness
from bench.method import Method
from bench.train.displaced import Displacement
from methods.area import area_weights
from methods.balanced_bce import balanced_binary_losses, log_class_odds
from methods.concutmix import corrected_labels, nearest_classes, soft_cross_entropy
from methods.dbm import dbm_logits, dbm_margins
from methods.deit_lt import deit_lt_loss
from methods.dirmixe import dirmixe_loss, dirmixe_losses, prior_centres
from methods.etf import dot_regression, lengths_in_batch, transport_cost
from methods.h2t import chosen_channels, fuse_channels
from methods.inc import apart, within_classes
from methods.mdcs import mdcs_adjustments, mdcs_loss
from methods.parts.heads import CosineHead
from methods.parts.weights import effective_number_weights, log_class_prior
from methods.sbcl import clusters_per_class, sbcl_loss, spread_temperatures

FLOAT32 = {"rtol": 2e-6, "grad_rtol": 2e-6, "atol": 1e-9}


def close(ours, theirs, rtol=2e-6, atol=1e-9):
    torch.testing.assert_close(ours.detach().double(), theirs.double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", ["dbm_ce_C10", "dbm_bs_C10"])
def test_dbm(name):
    g, settings = golden(name)
    margins = dbm_margins(g["cls_num_list"], settings["max_margin"], settings["tau"])
    prior = log_class_prior(g["cls_num_list"]) if "bs" in name else torch.zeros(())

    def logits(cosines):
        return dbm_logits(cosines, g["labels"], margins, settings["cos_scale"], settings["lambda_inst"])

    close(logits(g["cosine"]), g["logits_with_margin"])
    check(
        lambda cosines: F.cross_entropy(logits(cosines) + prior, g["labels"]),
        g["cosine"],
        g["loss"],
        g["grad_cosine"],
        **FLOAT32,
    )


def normed(features):
    return F.normalize(F.batch_norm(features, None, None, training=True, eps=1e-5), dim=1)


def test_etf_dot_regression():
    g, settings = golden("etf_dr_C10")
    vertices, labels = g["ori_M"], g["labels"]
    lengths = lengths_in_batch(labels, 10)
    close(lengths, g["Ew"][0])
    close(normed(g["features"]), g["unit_features"])
    close(normed(g["features"]) @ vertices, g["scores"])
    lam, partners = settings["mixup_lam"], labels[g["permutation"]]

    def loss(features):
        h = normed(features)
        own, other = (dot_regression(h, vertices * lengths, y) for y in (labels, partners))
        return lam * own + (1 - lam) * other

    check(loss, g["features"], g["loss"], g["grad_features"], **FLOAT32)


def test_etf_dot_regression_of_features_with_lengths():
    g, settings = golden("etf_dr_imagenet_form_C10")
    vertices = g["ori_M"] * lengths_in_batch(g["labels"], 10)
    check(
        lambda features: dot_regression(features, vertices, g["labels"], settings["reg_lam"]),
        g["features"],
        g["loss"],
        g["grad_features"],
        **FLOAT32,
    )


def test_disa_transport():
    g, _ = golden("disa_ot_C10")
    check(
        lambda features: transport_cost(1 - normed(features) @ g["ori_M"], rounds=10),
        g["features"],
        g["loss_ot"],
        g["grad_features"],
        rtol=2e-6,
        grad_rtol=1e-5,
        atol=1e-8,
    )


def test_inc():
    g, _ = golden("inc_nc_C10")
    features, means, labels = g["features"], g["means"], g["labels"]
    near = {"rtol": 1e-7, "grad_rtol": 1e-7, "atol": 1e-9}
    check(lambda f: within_classes(f, means, labels), features, g["loss_nc1"], g["grad_features_nc1"], **near)
    check(lambda m: within_classes(features, m, labels), means, g["loss_nc1"], g["grad_means_nc1"], **near)
    check(apart, means, g["loss_nc2_v0"], g["grad_means_nc2_v0"], **near)


@pytest.mark.parametrize("name", ["mdcs_e10_C10", "mdcs_e25_C10"])
def test_mdcs(name):
    g, settings = golden(name)
    weight = settings["kd_weight"] * min(settings["epoch_1based"] / settings["warmup"], 1)
    adjustments = mdcs_adjustments(g["cls_num_list"])
    check(
        lambda z: mdcs_loss(z, g["labels"], adjustments, weight),
        g["expert_logits"],
        g["loss"],
        g["grad_expert_logits"],
        **FLOAT32,
    )


@pytest.mark.parametrize("name", ["dirmixe_loss_C10"])
def test_dirmixe(name):
    g, settings = golden(name)
    prior = prior_centres(g["cls_num_list"])[0]
    given = (g["labels"], prior, g["test_priors"], g["components"], settings["power"])
    close(dirmixe_losses(g["expert_logits"], *given), g["losses_per_draw"], rtol=1e-5)
    for weight, which in ((0.0, "mean_only"), (settings["lambda_var"], "with_variance")):
        largest = g[f"grad_{which}"].abs().max().item()
        check(
            lambda z, weight=weight: dirmixe_loss(z, *given, weight),
            g["expert_logits"],
            g[f"loss_{which}"],
            g[f"grad_{which}"],
            rtol=1e-5,
            grad_rtol=1e-4,
            atol=1e-5 * largest,
        )


def test_h2t():
    g, settings = golden("h2t_C10")
    fused = fuse_channels(g["maps_balanced"], g["maps_instance"], g["channels_replaced"])
    assert torch.equal(fused, g["maps_fused"])
    assert len(g["channels_replaced"]) == int(settings["rho"] * 16)
    numbers = torch.rand(3, 1)
    chosen = chosen_channels(numbers, 16, settings["rho"])
    assert len(chosen.unique()) == 4
    head = nn.Linear(16, 10, dtype=torch.float64)
    head.load_state_dict({"weight": g["weight"], "bias": g["bias"]})
    logits = head(fused.mean(dim=(2, 3)))
    close(logits, g["logits"])
    loss = F.cross_entropy(logits, g["labels"])
    loss.backward()
    close(loss, g["loss"])
    close(head.weight.grad, g["grad_weight"])


def test_area():
    g, settings = golden("area_weights_C10")
    weights = area_weights(g["features"].float(), g["labels"], 10, settings["batch"])
    close(weights, g["weights"], rtol=1e-5)


def test_balanced_bce():
    g, settings = golden("livt_bce_C10")
    odds = log_class_odds(g["cls_num_list"])
    check(
        lambda z: balanced_binary_losses(z, g["labels"], odds, settings["smoothing"]).mean(),
        g["logits"],
        g["loss_bal_bce"],
        g["grad_bal_bce"],
        rtol=1e-6,
        grad_rtol=1e-6,
    )


def test_sure_steps():
    g, settings = golden("sure_sam_crl_C10")
    head = CosineHead(32, 10, settings["cos_scale"]).double()
    with torch.no_grad():
        head.weight.copy_(g["weight_before"].T)
    step = Displacement(_Holder(head), Sharpness(form="sam", rho=settings["rho"]))
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=settings["lr"],
        momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
    )
    losses = []

    def backward():
        loss = F.cross_entropy(head(g["features"]), g["labels"])
        loss.backward()
        return loss.detach()

    for number in range(3):
        optimizer.zero_grad()
        losses.append(step.descend(g["labels"], backward, lambda: None))
        optimizer.step()
        close(head.weight.T, g["weights_after"][number], rtol=1e-6)
    close(torch.stack(losses), g["losses"], rtol=1e-6)
    close(head(g["features"]), g["logits_end"], rtol=1e-6)


class _Holder(Method):
    """A method that learns nothing but a head."""

    def __init__(self, head):
        super().__init__(None, np.array([5, 3]))
        self.head = head


def test_concutmix_labels():
    g, settings = golden("concutmix_label_C10")
    numerator, denominator = settings["scaling_factor"]
    nearby = nearest_classes(g["features"], g["centers"], settings["topk"])
    for strength, name in ((numerator / denominator, "corrected"), (8.0, "corrected_factor8")):
        close(corrected_labels(g["mixed"], nearby, g["cls_num_list"], strength), g[name], rtol=1e-5)
    prior = log_class_prior(g["cls_num_list"])
    check(
        lambda z: soft_cross_entropy(z + settings["tau"] * prior, g["corrected"]),
        g["logits"],
        g["loss"],
        g["grad_logits"],
        rtol=1e-5,
        grad_rtol=1e-4,
    )


def test_sbcl():
    g, settings = golden("sbcl_loss_C10")
    clusters = clusters_per_class(g["cls_num_list"], settings["min_cluster"])
    assert torch.equal(clusters, g["clusters_per_class"])
    own = (settings["temperature"], settings["base_temperature"], settings["gamma"])
    tau = spread_temperatures(g["mean_distance"], g["cls_num_list"], clusters.tolist(), own[0])
    close(tau, g["ranking_temperature"], rtol=1e-5)
    for ranked, name in ((None, "plain"), (g["ranking_temperature"], "rank")):
        check(
            lambda f, ranked=ranked: sbcl_loss(
                f.transpose(0, 1), g["labels"], g["subclass_labels"], *own, ranked
            ),
            g["features"],
            g[f"loss_{name}"],
            g[f"grad_features_{name}"],
            rtol=1e-6,
            grad_rtol=1e-5,
        )


def test_deit_lt():
    g, settings = golden("deitlt_loss_C10")
    weights = effective_number_weights(g["cls_num_list"], settings["beta"])
    close(weights, g["class_weights"], rtol=1e-5)
    for phase, own in (("plain", torch.ones(10)), ("drw", weights)):
        check(
            lambda z, own=own: deit_lt_loss(g["cls_logits"], z, g["teacher_logits"], g["soft_targets"], own),
            g["dist_logits"],
            g[f"loss_{phase}"],
            g[f"grad_dist_{phase}"],
            rtol=1e-5,
            grad_rtol=1e-4,
        )
