"""KCL, TSC, PaCo and GPaCo against values of published code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden_values import check, golden

from methods.kcl import kcl_loss, pick
from methods.paco import paco_loss
from methods.parts.weights import log_class_prior
from methods.tsc import assign, follow_centroids, uniformity

FLOAT32 = {"rtol": 1e-5, "grad_rtol": 1e-4}
FLOAT64 = {"rtol": 2e-6, "grad_rtol": 1e-5, "atol": 1e-7}


def picked(g, settings):
    """The positives in the queue: fewer per class than drawn, so whatever the draws, all of them."""
    positive = g["labels"][:, None] == g["queue_labels"]
    draws = torch.rand(len(positive), settings["num_positive"], generator=torch.Generator().manual_seed(0))
    assert torch.equal(pick(positive, draws), positive)
    return positive.float()


def test_kcl():
    g, settings = golden("kcl_moco_C12")
    key = F.normalize(g["k_raw"], dim=1)
    check(
        lambda raw: kcl_loss(
            F.normalize(raw, dim=1), key, g["queue"], picked(g, settings), settings["temperature"]
        ),
        g["q_raw"],
        g["loss"],
        g["grad_q_raw"],
        **FLOAT32,
    )


def test_tsc():
    g, settings = golden("tsc_moco_C12")
    query, key = F.normalize(g["q_raw"], dim=1), F.normalize(g["k_raw"], dim=1)
    centroids = follow_centroids(g["class_centroid_before"], query, g["labels"])
    torch.testing.assert_close(centroids, g["class_centroid_after"])
    target_of_class = assign(centroids, g["targets"])
    assert torch.equal(target_of_class, g["target_of_class"])
    others = torch.cat([g["queue"], g["targets"][target_of_class]])
    own = settings["target_weight"] * F.one_hot(g["labels"], 12)
    weights = torch.cat([picked(g, settings), own], dim=1)
    check(
        lambda raw: kcl_loss(F.normalize(raw, dim=1), key, others, weights, settings["temperature"]),
        g["q_raw"],
        g["loss"],
        g["grad_q_raw"],
        **FLOAT32,
    )


def test_tsc_uniformity():
    g, settings = golden("tsc_uniform_objective")
    check(
        lambda points: uniformity(points, settings["t"]),
        g["points"],
        g["loss"],
        g["grad_points"],
        **FLOAT64,
    )


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("paco_C10", "q"),
        ("paco_C10", "logits"),  # its keys carry no gradient: see test_momentum.py
        *((name, of) for name in ("gpaco_C10", "gpaco_smooth0.1_C10") for of in ("q", "k", "logits")),
    ],
)
def test_paco(name, of):
    g, settings = golden(name)
    labels = torch.cat([g["labels"], g["labels"], g["queue_labels"]])
    inputs = {"q": g["q"], "k": g["k"], "logits": g["centre_logits"]}

    def loss(leaf):
        given = {**inputs, of: leaf}
        return paco_loss(
            given["logits"] + log_class_prior(g["cls_num_list"]),
            torch.cat([given["q"], given["k"], g["queue"]]),
            labels,
            settings["alpha"],
            settings["temperature"],
            settings.get("smooth", 0.0),
        )

    check(loss, inputs[of], g["loss"], g[f"grad_{of}"], **FLOAT64)
