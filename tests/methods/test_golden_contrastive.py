"""SupCon, BCL, BCCL and GML against values of their authors' code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden_values import check, golden

from methods.bccl import ClassQueue, centroid_loss
from methods.bcl import balanced_contrast_loss
from methods.gml import distillation_loss, mixture_contrast_loss
from methods.parts.contrast import class_averaged_contrast, count_of_class
from methods.parts.heads import CosineHead
from methods.parts.kmeans import kmeans
from methods.parts.projector import Projector
from methods.parts.weights import log_class_prior
from methods.supcon import supcon_loss

EXACT = {"rtol": 1e-6, "grad_rtol": 1e-5, "atol": 1e-7}


def stack(features):
    """(B, V, D) to view-major (V*B, D)."""
    return features.transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize(
    "name",
    [
        "sup_all_t0.1_bt0.1",
        "sup_all_t0.1_bt0.07",
        "sup_one_t0.07_bt0.07",
        "simclr_all_t0.5_bt0.5",
        "singleview_singletons",
    ],
)
def test_supcon(name):
    g, s = golden(f"supcon_{name}_C10")
    labels = g["labels"] if s.get("uses_labels", True) else None
    check(
        lambda f: supcon_loss(
            f.transpose(0, 1), labels, s["temperature"], s["base_temperature"], s["contrast_mode"]
        ),
        g["features"],
        g["loss"],
        g["grad_features"],
        **EXACT,
    )


@pytest.mark.parametrize("temperature", [0.07, 0.1])
def test_bcl(temperature):
    g, _ = golden(f"bcl_balscl_t{temperature}_C10")
    y = g["labels"].repeat(2)
    loss = balanced_contrast_loss
    check(
        lambda f: loss(stack(f), y, g["centers"], temperature),
        g["features"],
        g["loss"],
        g["grad_features"],
        **EXACT,
    )
    check(
        lambda c: loss(stack(g["features"]), y, c, temperature),
        g["centers"],
        g["loss"],
        g["grad_centers"],
        **EXACT,
    )


@pytest.mark.parametrize("name", ["a2.0_b0.6", "a1.0_b0.35"])
def test_bcl_total(name):
    g, s = golden(f"bcl_total_{name}_C10")
    prior = log_class_prior(g["cls_num_list"]).double()
    y = g["labels"]

    def total(logits, features):
        ce = F.cross_entropy(logits + prior, y)
        contrast = balanced_contrast_loss(stack(features), y.repeat(2), g["centers"], s["temperature"])
        return s["alpha"] * ce + s["beta"] * contrast

    tolerance = {"rtol": 2e-6, "grad_rtol": 1e-5, "atol": 1e-7}
    check(lambda z: total(z, g["features"]), g["logits"], g["loss"], g["grad_logits"], **tolerance)
    check(lambda f: total(g["logits"], f), g["features"], g["loss"], g["grad_features"], **tolerance)


def test_bcl_heads_in_one_forward_pass():
    g, s = golden("bcl_heads_C10")

    def load(projector, prefix):
        first, _, _, last = projector.layers
        for layer, number in ((first, 1), (last, 2)):
            layer.weight.data = g[f"{prefix}_w{number}"].clone()
            layer.bias.data = g[f"{prefix}_b{number}"].clone()
        return projector.double().train()

    projector, centers = (load(Projector(64), prefix) for prefix in ("head", "centre"))
    head = CosineHead(64, 10, s["scale"]).double()
    head.weight.data = g["fc_weight"].T.clone()
    features = g["backbone_features"]
    # the projector leaves autocast in float32: in double here, it must not round
    projections = F.normalize(projector.layers(features), dim=1)
    prototypes = F.normalize(centers.layers(head.weight), dim=1)
    logits = head(features)
    torch.testing.assert_close(projections, g["out_projection"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(prototypes, g["out_centers"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(logits, g["out_logits"], rtol=1e-6, atol=1e-7)

    y, images = g["labels"], len(g["labels"])
    prior = log_class_prior(g["cls_num_list"]).double()
    ce = F.cross_entropy(logits[:images] + prior, y)
    contrast = balanced_contrast_loss(projections[images:], y.repeat(2), prototypes, s["temperature"])
    torch.testing.assert_close(ce, g["loss_ce"], rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(contrast, g["loss_scl"], rtol=1e-6, atol=1e-7)
    (s["alpha"] * ce + s["beta"] * contrast).backward()
    torch.testing.assert_close(head.weight.grad.T, g["grad_fc_weight"], rtol=1e-5, atol=1e-7)


def test_bccl_contrast_counts_images():
    g, s = golden("bccl_K5_t0.1_C10")
    y = g["labels"].repeat(2)
    images = count_of_class(g["labels"], 10)
    for loss, grad in (("loss_scl", "grad_features_scl"), ("loss_scl_warmup", "grad_features_scl_warmup")):
        check(
            lambda f: class_averaged_contrast(stack(f), y, s["temperature"], images),
            g["features"],
            g[loss],
            g[grad],
            **EXACT,
        )


def test_bccl_centroids():
    g, _ = golden("bccl_K5_t0.1_C10")
    y = g["labels"].repeat(2)
    check(
        lambda f: centroid_loss(stack(f), y, g["centroids"]),
        g["features"],
        g["loss_centroid"],
        g["grad_features_centroid"],
        **EXACT,
    )


def test_bccl_queue():
    g, s = golden("bccl_queue")
    queue = ClassQueue(s["num_classes"], s["queue_size"], 3).double()
    for step, (features, labels) in enumerate(zip(g["feat_mlp"], g["targets"], strict=True)):
        queue.add(features, labels.repeat(2))
        for c in range(s["num_classes"]):
            expected = g.get(f"queue_step{step}_class{c}", torch.zeros(0, 3).double())
            assert torch.equal(queue.rows[c, : queue.counts[c]], expected), (step, c)


def test_bccl_kmeans():
    g, _ = golden("bccl_kmeans")
    points = g["points"].float()[None]
    centers, labels = kmeans(points, torch.ones(1, 100).bool(), g["init_centroids"].float()[None])
    assert torch.equal(labels[0], g["assignments"])
    torch.testing.assert_close(centers[0], g["centroids"], rtol=1e-5, atol=1e-6)


def test_gml():
    g, s = golden("gml_C10")
    prior = log_class_prior(g["cls_num_list"]).double()
    log_t = torch.tensor([s["T_c_init"]]).double().log()

    def contrast(query, key, log_temperature):
        cosines, other_image = query @ key.T, g["query_index"][:, None] != g["key_index"]
        return mixture_contrast_loss(
            cosines, g["query_labels"], g["key_labels"], other_image, log_temperature, prior
        )

    tolerance = {"rtol": 2e-6, "grad_rtol": 1e-5, "atol": 1e-7}
    value = g["loss_contrastive_two_terms"]
    check(lambda q: contrast(q, g["key"], log_t), g["query"], value, g["grad_query"], **tolerance)
    check(lambda k: contrast(g["query"], k, log_t), g["key"], value, g["grad_key"], **tolerance)
    check(lambda t: contrast(g["query"], g["key"], t), log_t, value, g["grad_log_T_c"], **tolerance)

    def supervised(cosines):
        logits, teacher = cosines / s["T_s"], g["teacher_cosine"] / s["T_s"]
        ce = F.cross_entropy(logits + prior, g["query_labels"])
        return ce + distillation_loss(logits, teacher, s["kd_T"])

    total = g["loss"] - value
    check(supervised, g["sup_cosine"], total, g["grad_sup_cosine"], **tolerance)
