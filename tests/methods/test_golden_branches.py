"""Methods of several branches or experts against values of their authors' code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden_values import check, golden

from methods.balpoe import BalPoE
from methods.bbn import bbn_alpha, bbn_features, bbn_loss
from methods.causal_tde import causal_logits, tde_logits
from methods.glmc import glmc_loss
from methods.ncl import ncl_loss
from methods.parts.adjusted_experts import adjusted_losses
from methods.parts.mixing import Mix
from methods.parts.weights import log_class_prior, power_weights
from methods.sade import sade_adjustments
from methods.shike import cross_entropies, shike_loss

UNWEIGHTED = torch.ones(10)


def test_sade():
    g, settings = golden("classic_sade_c10")
    adjustments = sade_adjustments(g["in_cls_num"], settings["tau"])
    torch.testing.assert_close(adjustments[1], g["in_prior"].log().float(), rtol=1e-5, atol=1e-5)
    check(
        lambda logits: adjusted_losses(logits, g["in_labels"], adjustments, UNWEIGHTED).sum(),
        g["in_expert_logits"],
        g["out_loss"],
        g["out_grad_expert_logits"],
    )


def test_balpoe():
    g, settings = golden("classic_balpoe_c10")
    adjustments = torch.tensor(settings["tau_list"])[:, None] * log_class_prior(g["in_cls_num"])
    check(
        lambda logits: adjusted_losses(logits, g["in_labels"], adjustments, UNWEIGHTED).mean(),
        g["in_expert_logits"],
        g["out_loss"],
        g["out_grad_expert_logits"],
    )
    assert BalPoE.scores == "balanced"


@pytest.mark.parametrize("epoch", [1, 100, 200])
def test_bbn(epoch):
    g, settings = golden("classic_bbn_c10")
    alpha = torch.tensor(bbn_alpha(epoch - 1, settings["max_epoch"]))
    torch.testing.assert_close(alpha.double(), g[f"out_alpha_epoch{epoch}"].double(), rtol=1e-5, atol=1e-7)
    inputs = {
        "feat_cb": g["in_feat_conventional"],
        "feat_rb": g["in_feat_rebalancing"],
        "weight": g["in_weight"],
    }
    for name, leaf in inputs.items():

        def loss_of(x, name=name):
            now = {**inputs, name: x}
            logits = F.linear(bbn_features(now["feat_cb"], now["feat_rb"], alpha), now["weight"])
            return bbn_loss(logits, g["in_labels_uniform"], g["in_labels_reversed"], alpha)

        check(loss_of, leaf, g[f"out_loss_epoch{epoch}"], g[f"out_grad_{name}_epoch{epoch}"])


def test_bbn_test_time():
    g, _ = golden("classic_bbn_c10")
    both = torch.cat([g["in_feat_conventional"], g["in_feat_rebalancing"]], dim=1)
    halved = bbn_features(g["in_feat_conventional"], g["in_feat_rebalancing"], torch.tensor(0.5))
    torch.testing.assert_close(halved, both)
    torch.testing.assert_close(F.linear(both, g["in_weight"]), g["out_test_logits_if_same_image"])


def test_causal_tde():
    g, settings = golden("classic_causal_tde_c10")
    assert settings["gamma"] == 1 / 32
    features, weight, mean = g["in_feats"], g["in_weight"], g["in_embed"]
    heads, tau = settings["num_head"], settings["tau"]
    trained = causal_logits(features, weight, heads, tau)
    torch.testing.assert_close(trained, g["out_train_logits"], rtol=1e-4, atol=1e-6)
    tested = tde_logits(features, weight, mean, heads, tau, settings["alpha"])
    torch.testing.assert_close(tested, g["out_tde_logits"], rtol=1e-4, atol=1e-5)


def test_ncl():
    g, settings = golden("classic_ncl_c10")
    assert settings["diversity_factor"] == settings["diversity_factor_hcm"]
    log_counts = g["in_cls_num"].float().log()
    check(
        lambda logits: ncl_loss(
            logits, g["in_labels"], log_counts, settings["hcm_n"], settings["diversity_factor"]
        ),
        g["in_expert_logits"],
        g["out_loss"],
        g["out_grad_expert_logits"],
    )


def test_glmc():
    g, settings = golden("classic_glmc_softlabel_c10")
    weights = power_weights(g["in_cls_num"], settings["label_weighting"])
    torch.testing.assert_close(weights, g["in_class_weight"].float())
    own = torch.full((len(g["in_labels_a"]),), settings["lam"])
    mix = Mix(torch.empty(0), g["in_labels_a"], g["in_labels_b"], own)
    plain, weighted, alpha = g["in_logits_fc"], g["in_logits_fc_cb"], g["out_alpha"].float()
    for share, expected in ((1.0, "out_loss_plain"), (0.0, "out_loss_rebalanced")):
        loss = glmc_loss(plain, weighted, mix, weights, torch.tensor(share))
        torch.testing.assert_close(loss.double(), g[expected].double(), rtol=1e-4, atol=1e-6)
    loss, grads = g["out_loss"], (g["out_grad_logits_fc"], g["out_grad_logits_fc_cb"])
    check(lambda z: glmc_loss(z, weighted, mix, weights, alpha), plain, loss, grads[0])
    check(lambda z: glmc_loss(plain, z, mix, weights, alpha), weighted, loss, grads[1])


def test_shike_first_stage():
    g, settings = golden("classic_shike_stage1_c10")
    check(
        lambda logits: shike_loss(logits, g["in_labels"], settings["hns_weight"]),
        g["in_expert_logits"],
        g["out_loss"],
        g["out_grad_expert_logits"],
    )


def test_shike_second_stage():
    g, _ = golden("classic_shike_stage2_c10")
    log_prior = log_class_prior(g["in_cls_num"])
    check(
        lambda logits: cross_entropies(logits + log_prior, g["in_labels"]),
        g["in_expert_logits"],
        g["out_loss"],
        g["out_grad_expert_logits"],
    )
