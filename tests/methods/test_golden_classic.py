"""The classic losses against values of their authors' code."""

from __future__ import annotations

import pytest
import torch
from golden_values import check, golden

from bench.cell import Schedule
from bench.cifar_resnets import CifarResNet
from bench.method import Clock
from bench.train.schedule import lr_factor
from methods.focal import sigmoid_focal_loss, softmax_focal_loss
from methods.ldam import ldam_loss, ldam_margins
from methods.parts.heads import CosineHead
from methods.parts.weights import (
    DeferredWeights,
    effective_number_weights,
    log_class_prior,
    weighted_cross_entropy,
)


def check_logits(name, loss):
    g, settings = golden(name)
    weights = g.get("in_class_weight", torch.ones(10)).float()
    check(
        lambda z: loss(z, g["in_labels"], weights, settings),
        g["in_logits"],
        g["out_loss"],
        g["out_grad_logits"],
    )


def test_cross_entropy():
    check_logits("classic_ce_c10", lambda z, y, w, s: weighted_cross_entropy(z, y, w))


@pytest.mark.parametrize("beta", ["999", "9999"])
@pytest.mark.parametrize(("file", "reduction"), [("wmean", "weighted_mean"), ("meanB", "batch")])
def test_class_balanced_cross_entropy(file, reduction, beta):
    check_logits(
        f"classic_cb_softmax_{file}_b{beta}_c10",
        lambda z, y, w, s: weighted_cross_entropy(z, y, w, reduction),
    )


@pytest.mark.parametrize(
    "name",
    [
        "cb_sigmoid_b999",
        "cb_sigmoid_b9999",
        "cb_focal_g1_b999",
        "cb_focal_g1_b9999",
        "cb_focal_g2_b999",
        "cb_focal_g2_b9999",
        "focal_sigmoid_g1",
    ],
)
def test_sigmoid_focal(name):
    check_logits(f"classic_{name}_c10", lambda z, y, w, s: sigmoid_focal_loss(z, y, w, s.get("gamma", 0.0)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal_softmax_g1", {}),
        ("focal_softmax_g2", {}),
        ("focal_softmax_weighted_clean", {}),
        ("focal_softmax_weighted_quirk", {"ldam_compat": True}),
        ("focal_softmax_detached_g2", {"detach": True}),
    ],
)
def test_softmax_focal(name, options):
    check_logits(f"classic_{name}_c10", lambda z, y, w, s: softmax_focal_loss(z, y, w, s["gamma"], **options))


def test_softmax_focal_in_double():
    g, settings = golden("focal_gamma2_C10")
    check(
        lambda z: softmax_focal_loss(z, g["labels"], torch.ones(10).double(), settings["gamma"]),
        g["logits"],
        g["loss"],
        g["grad_logits"],
        rtol=1e-6,
        grad_rtol=1e-5,
        atol=1e-7,
    )


def test_softmax_focal_keeps_its_gradient_at_certainty():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    softmax_focal_loss(logits, torch.tensor([0]), torch.ones(2), gamma=0.5).backward()
    assert logits.grad.isfinite().all()


def test_effective_number_weights():
    g, settings = golden("classic_cb_weights_c10")
    for beta in settings["betas"]:
        weights = effective_number_weights(g["in_cls_num"], beta)
        torch.testing.assert_close(weights, g[f"out_weight_beta{beta}"].float(), rtol=1e-5, atol=0)
    assert torch.equal(effective_number_weights(g["in_cls_num"], 0.0), torch.ones(10))


def test_deferred_weights_switch_on_at_epoch_160_of_200():
    g, settings = golden("classic_drw_weights_c10")
    weights = DeferredWeights(g["in_cls_num"], start=0.8, beta=settings["beta"])
    for epoch in (0, 159, 160, 199):
        weights.update(Clock(epoch, 200, epoch, 200))
        torch.testing.assert_close(weights.now, g[f"out_weight_epoch{epoch}"].float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["ldam", "ldam_drw", "ldam_icf_inverse_freq"])
def test_ldam(name):
    g, settings = golden(f"classic_{name}_c10")
    margins = ldam_margins(g["in_cls_num"], settings["max_m"])
    torch.testing.assert_close(margins, g["in_margins"].float(), rtol=1e-5, atol=0)
    weights = g.get("in_class_weight", torch.ones(10)).float()
    check(
        lambda cos: ldam_loss(cos, g["in_labels"], margins, settings["s"], weights),
        g["in_cosine"],
        g["out_loss"],
        g["out_grad_cosine"],
    )


@pytest.mark.parametrize("name", ["ldam_C10", "ldam_drw_C10"])
def test_ldam_beside_the_contrastive_losses(name):
    g, settings = golden(name)
    margins = ldam_margins(g["cls_num_list"], settings["max_m"])
    weights = g["class_weights"].float() if "drw" in name else torch.ones(10)
    check(
        lambda cos: ldam_loss(cos, g["labels"], margins, settings["s"], weights),
        g["cosine_logits"],
        g["loss"],
        g["grad_logits"],
        rtol=1e-5,
        grad_rtol=1e-4,
    )


def test_ldam_through_its_normed_classifier():
    g, settings = golden("classic_ldam_normedlinear_c10")
    head = CosineHead(32, 10)
    head.weight.data = g["in_weight"].clone()
    margins = ldam_margins(g["in_cls_num"], settings["max_m"])
    check(
        lambda f: ldam_loss(head(f), g["in_labels"], margins, settings["s"], torch.ones(10)),
        g["in_feats"],
        g["out_loss"],
        g["out_grad_feats"],
    )
    torch.testing.assert_close(head(g["in_feats"]).detach(), g["out_cosine"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head.weight.grad, g["out_grad_weight"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["balanced_softmax_c10", "logit_adjust_loss_tau10_c10", "logit_adjust_loss_tau15_c10"]
)
def test_logit_adjustment(name):
    g, settings = golden(f"classic_{name}")
    tau = settings.get("tau", 1.0)
    prior = log_class_prior(g["in_cls_num"])
    check(
        lambda z: weighted_cross_entropy(z + tau * prior, g["in_labels"], torch.ones(10)),
        g["in_logits"],
        g["out_loss"],
        g["out_grad_logits"],
    )


@pytest.mark.parametrize("name", ["logitadjust_tau1.0_C10", "logitadjust_tau2.0_C10"])
def test_logit_compensation_of_the_contrastive_methods(name):
    g, settings = golden(name)
    prior = log_class_prior(g["cls_num_list"]).double()
    check(
        lambda z: weighted_cross_entropy(z + settings["tau"] * prior, g["labels"], torch.ones(10).double()),
        g["logits"],
        g["loss"],
        g["grad_logits"],
        rtol=2e-6,
        grad_rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_posthoc_logit_adjustment(tau):
    g, _ = golden("classic_logit_adjust_posthoc_c10")
    adjusted = g["in_logits"] - tau * log_class_prior(g["in_cls_num"])
    torch.testing.assert_close(adjusted, g[f"out_adjusted_tau{tau}"].float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(adjusted.argmax(1), g[f"out_pred_tau{tau}"])


def test_cifar_resnet32():
    g, settings = golden("classic_resnet32_linear_c100")
    model = CifarResNet(blocks=5, num_classes=100)
    ours = dict(model.state_dict())
    for entry in settings["order"]:
        key, name = entry.split(" ")[0].split("=")
        ours.pop(name.replace("linear.", "fc.")).copy_(g[key])
    assert all(name.endswith("num_batches_tracked") for name in ours)
    assert sum(p.numel() for p in model.parameters()) == settings["num_params"]
    with torch.no_grad():
        evaluated = model.eval()(g["in_images"])
        trained = model.train()(g["in_images"])
    torch.testing.assert_close(evaluated, g["out_logits_eval"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trained, g["out_logits_train"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        model.bn1.running_mean, g["out_bn1_running_mean_after_one_train_pass"], rtol=1e-4, atol=1e-6
    )


def rates(schedule, epochs, lr):
    return torch.tensor(
        [lr * lr_factor(schedule, Clock(e, epochs, e, epochs)) for e in range(epochs)]
    ).double()


@pytest.mark.parametrize(
    ("key", "factors"),
    [
        ("out_ldam_cifar", (0.01, 0.0001)),
        ("out_ride_cifar", (0.01, 0.0001)),
        ("out_sade_balpoe_cifar", (0.1, 0.01)),
        ("out_mislas_stage1_cifar", (0.1, 0.01)),
    ],
)
def test_step_schedules(key, factors):
    g, _ = golden("classic_lr_schedules")
    schedule = Schedule(kind="steps", warmup_epochs=5, milestones=(160, 180), factors=factors)
    torch.testing.assert_close(rates(schedule, 200, 0.1), g[key], rtol=1e-6, atol=1e-9)


def test_cosine_schedule_of_crt():
    g, _ = golden("classic_lr_schedules")
    ours = rates(Schedule(kind="cosine"), 10, 0.2)
    torch.testing.assert_close(ours, g["out_crt_cosine_lr_epochs10"][:10], rtol=1e-6, atol=1e-9)


def test_cosine_schedule_of_bcl_is_one_epoch_ahead():
    ours = rates(Schedule(kind="cosine", warmup_epochs=5, lead=1), 200, 0.15)
    e = torch.arange(5, 200).double()
    torch.testing.assert_close(ours[5:], 0.15 * (1 + torch.cos(torch.pi * (e - 4) / 196)) / 2)
    torch.testing.assert_close(ours[:5], 0.15 * torch.arange(1, 6).double() / 5)
