"""DSCL, PBSD and RIDE against values of their authors' code."""

from __future__ import annotations

import pytest
import torch
from golden_values import check, golden

from methods.dscl import dscl_loss, pbsd_loss
from methods.ldam import ldam_margins
from methods.parts.weights import effective_number_weights
from methods.ride import ride_loss, ride_temperatures

EXACT = {"rtol": 1e-6, "grad_rtol": 1e-5, "atol": 1e-7}


@pytest.mark.parametrize("name", ["dscl_beta8.0_t0.07_C10", "dscl_beta0.2_t0.1_C10"])
def test_dscl(name):
    g, settings = golden(name)
    check(
        lambda query: dscl_loss(
            query,
            g["k"],
            g["queue"],
            g["labels"],
            g["queue_labels"],
            settings["temperature"],
            settings["beta"],
        ),
        g["q"],
        g["loss"],
        g["grad_q"],
        **EXACT,
    )


def test_pbsd():
    g, settings = golden("dscl_pbsd_C10")
    teachers, key, queue, tau = g["roi_features"], g["k"], g["queue"], settings["temperature"]
    own = (teachers * key).sum(-1, keepdim=True)
    p = (torch.cat([own, teachers @ queue.T], dim=-1) / tau).softmax(dim=-1)
    entropy = -(p * p.log()).sum(-1).mean()  # what their cross-entropy has beyond the divergence
    check(
        lambda students: pbsd_loss(teachers, students, key, queue, tau) + entropy,
        g["small_crop_features"],
        g["loss"],
        g["grad_small_crop_features"],
        **EXACT,
    )


@pytest.mark.parametrize(
    ("name", "reweighted", "prefix"),
    [
        ("ride_epoch0_C10", False, ""),
        ("ride_epoch161_C10", True, ""),
        ("classic_ride_before_reweight_c10", False, "in_"),
        ("classic_ride_after_reweight_c10", True, "in_"),
    ],
)
def test_ride(name, reweighted, prefix):
    g, settings = golden(name)
    counts = g.get("cls_num_list", g.get("in_cls_num"))
    assert (settings["epoch"] > settings["reweight_epoch"]) == reweighted
    weights, temperature = torch.ones(10), torch.ones(10)
    if reweighted:
        weights = effective_number_weights(counts, 0.9999)
        temperature = ride_temperatures(counts, settings["reweight_factor"])
    check(
        lambda logits: ride_loss(
            logits,
            g[f"{prefix}labels"],
            ldam_margins(counts, 0.5),
            30.0,
            weights,
            temperature,
            -settings["additional_diversity_factor"],
        ),
        g[f"{prefix}expert_logits"],
        g.get("loss", g.get("out_loss")).reshape(()),
        g.get("grad_expert_logits", g.get("out_grad_expert_logits")),
        rtol=1e-5,
        grad_rtol=1e-4,
    )


def test_ride_temperatures():
    g, settings = golden("classic_ride_after_reweight_c10")
    found = ride_temperatures(g["in_cls_num"], settings["reweight_factor"])
    torch.testing.assert_close(found, g["in_diversity_temperature"].float())
