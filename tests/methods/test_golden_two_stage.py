"""The two-stage methods against values of their authors' code and formulas."""

from __future__ import annotations

import pytest
import torch
from golden_values import check, golden
from torch import nn

from bench.cell import Schedule
from bench.method import Clock
from bench.train.schedule import lr_factor
from methods.disalign import AlignedHead
from methods.lws import ScaledHead
from methods.mislas import label_aware_smoothing, smoothed_cross_entropy
from methods.ncm import class_means, minus_distances
from methods.parts.weights import effective_number_weights, power_weights, weighted_cross_entropy
from methods.tau_norm import tau_normalised
from methods.weight_balancing import binary_class_balanced_loss, norm_limit, within_norm


def close(ours, theirs, rtol=1e-4, atol=1e-6):
    torch.testing.assert_close(ours.detach().double(), theirs.double(), rtol=rtol, atol=atol)


def test_lws():
    g, _ = golden("classic_lws_c10")
    head = ScaledHead(32, 10)
    weights = {"linear.weight": g["in_weight"], "linear.bias": g["in_bias"], "scales": g["in_scales"]}
    head.load_state_dict(weights)
    close(head(g["in_feats"]), g["out_logits"], atol=1e-5)


def test_tau_norm():
    g, settings = golden("classic_tau_norm_c10")
    for tau in settings["taus"]:
        close(g["in_feats"] @ tau_normalised(g["in_weight"], tau).T, g[f"out_logits_tau{tau}"], atol=1e-5)


def test_ncm():
    g, _ = golden("classic_ncm_cl2n_c10")
    centre, means = class_means(g["in_train_feats"], g["in_train_labels"], 10)
    close(centre, g["out_feat_mean"])
    close(means, g["out_centroids"])
    scores = minus_distances(g["in_feats"], centre, means)
    close(scores, g["out_logits"])
    assert torch.equal(scores.argmax(dim=1), g["out_pred"])


@pytest.mark.parametrize("shape", ["concave", "linear", "convex"])
def test_label_aware_smoothing(shape):
    g, settings = golden(f"classic_las_{shape}_c10")
    head, tail = settings["smooth_head"], settings["smooth_tail"]
    smoothing = label_aware_smoothing(g["in_cls_num"], head, tail, shape)
    close(smoothing, g["in_smooth"])
    check(
        lambda z: smoothed_cross_entropy(z, g["in_labels"], smoothing),
        g["in_logits"],
        g["out_loss"],
        g["out_grad_logits"],
    )


def test_mislas_stage2_rates():
    g, _ = golden("classic_lr_schedules")
    rate = torch.tensor([0.1 * lr_factor(Schedule(kind="cosine"), Clock(e, 10, e, 10)) for e in range(10)])
    close(rate, g["out_mislas_stage2_lws_lr"])
    close(0.2 * rate, g["out_mislas_stage2_classifier_lr"])  # 0.2: the class's default lr_factor


def test_disalign_head():
    class Fixed(nn.Module):
        def forward(self, features):
            return g["in_logits"]

    g, _ = golden("classic_disalign_linear_c10")
    head = AlignedHead(32, 10)
    assert head.confidence.weight.eq(0.1).all()
    assert head.scales.eq(1).all()
    assert head.shifts.eq(0).all()
    head.linear = Fixed()
    head.load_state_dict(
        {
            "confidence.weight": g["in_conf_weight"],
            "confidence.bias": g["in_conf_bias"].view(1),
            "scales": g["in_logit_scale"][0],
            "shifts": g["in_logit_bias"][0],
        }
    )
    close(head.confidence(g["in_feats"]).sigmoid(), g["out_confidence"])
    close(head(g["in_feats"]), g["out_logits"], atol=1e-5)


def test_generalised_reweighting():
    g, settings = golden("classic_grw_rho12_c10")
    weights = power_weights(g["in_cls_num"], settings["exp_scale"])
    close(weights, g["in_class_weight"])
    check(
        lambda z: weighted_cross_entropy(z, g["in_labels"], weights),
        g["in_logits"],
        g["out_loss"],
        g["out_grad_logits"],
    )


def test_weight_balancing_loss():
    g, settings = golden("classic_wb_cb_bce_on_softmax_c10")
    weights = effective_number_weights(g["in_cls_num"], settings["beta"])
    close(weights, g["in_class_weight"])
    check(
        lambda z: binary_class_balanced_loss(z, g["in_labels"], weights),
        g["in_logits"],
        g["out_loss"],
        g["out_grad_logits"],
    )


def test_weight_balancing_limit():
    g, settings = golden("classic_wb_maxnorm_c10")
    limit = norm_limit(g["in_weight_at_init"], settings["thresh"])
    close(limit, g["out_threshold"])
    close(within_norm(g["in_weight_before_projection"], limit), g["out_weight_after"])
