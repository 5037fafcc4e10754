"""Steps taken away from the weights: against the authors' code, in the training loop, and where refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fast_runs import lines, make_cell, training, weights
from golden_values import golden
from torch import nn

from bench.cell import Optimizer, Sharpness
from bench.errors import BenchError
from bench.method import Batch, Clock, Method
from bench.train.displaced import Displacement, displacement
from methods.cc_sam import adversarial_features, moved_logits, rarity_weights

torch.set_num_threads(1)

EXACT = {"rtol": 1e-9, "atol": 1e-12}
FLOAT32 = {"rtol": 2e-6, "atol": 1e-8}


class Linear(Method):
    """A linear classifier on the images as they are, with an adjusted loss."""

    def __init__(self, counts, weight, bias, prior):
        super().__init__(None, counts)
        self.head = nn.Linear(*weight.T.shape, dtype=weight.dtype)
        self.head.load_state_dict({"weight": weight, "bias": bias})
        self.prior = prior

    def mean_over_images(self):
        return True

    def losses(self, batch):
        return F.cross_entropy(self.head(batch.images) + self.prior, batch.labels, reduction="none")

    def loss(self, batch):
        return self.losses(batch).mean()


FORMS = {
    "sam_C10": ("sam", EXACT),
    "asam_C10": ("sam", EXACT),
    "imbsam_C10": ("imbsam", EXACT),
    "imbsam_no_tail_C10": ("imbsam", EXACT),
    "focalsam_la_C10": ("focal_sam", FLOAT32),
    "focalsam_ce_C10": ("focal_sam", FLOAT32),
    "sam_a_C10": ("sam_a", FLOAT32),  # our class weights are float32
}


@pytest.mark.parametrize("name", FORMS)
def test_two_steps_are_the_authors(name):
    form, tolerance = FORMS[name]
    g, meta = golden(name)
    prior = torch.zeros((), dtype=torch.float64)
    if meta.get("loss") == "LA":
        prior = (g["cls_num_list"].double() / g["cls_num_list"].sum() + 1e-9).log()
    names = {"rho": "rho", "eta": "eta", "adaptive": "adaptive", "flat_gamma": "gamma"}
    options = {ours: meta[theirs] for theirs, ours in names.items() if theirs in meta}
    if "sharpness" in meta:
        options["strength"] = meta["sharpness"]
    method = Linear(g["cls_num_list"].numpy(), g["weight"], g["bias"], prior)
    optimizer = torch.optim.SGD(
        method.parameters(),
        lr=meta["lr"],
        momentum=meta["momentum"],
        weight_decay=meta["weight_decay"],
    )
    step = Displacement(method, Sharpness(form=form, **options))
    batch = Batch((g["inputs"],), g["labels"], torch.arange(len(g["labels"])))
    at = []

    def losses():
        at.append(method.head.weight.detach().clone())
        return method.losses(batch)

    def backward():
        loss = losses().mean()
        loss.backward()
        return loss.detach()

    for number in (1, 2):
        optimizer.zero_grad()
        step.descend(batch.labels, backward, losses)
        if number == 1:
            torch.testing.assert_close(at[-1], g["weight_perturbed"], **tolerance)
            torch.testing.assert_close(method.head.weight.grad, g["grad_used_weight"], **tolerance)
            torch.testing.assert_close(method.head.bias.grad, g["grad_used_bias"], **tolerance)
        optimizer.step()
        torch.testing.assert_close(method.head.weight.detach(), g[f"weight_after_{number}"], **tolerance)
        torch.testing.assert_close(method.head.bias.detach(), g[f"bias_after_{number}"], **tolerance)


def head_of(g):
    head = nn.Linear(*g["weight"].T.shape, dtype=torch.float64)
    head.load_state_dict({"weight": g["weight"], "bias": g["bias"]})
    return head


@pytest.mark.parametrize("name", ["ccsam_stage1_C10", "ccsam_stage1_tiny_C10"])
def test_cc_sam_stage_1(name):
    g, meta = golden(name)
    head, layer = head_of(g), g["feature_layer"].clone().requires_grad_()
    features, labels = g["inputs"] @ layer.T, g["labels"]
    targets = F.one_hot(labels, len(g["cls_num_list"]))
    moved = moved_logits(features, head, targets, labels, g["cls_num_list"], meta["noise_ratio"])
    share = meta["flat_ratio"]
    plain = F.cross_entropy(head(features), labels)
    loss = (1 - share) * plain + share * F.cross_entropy(moved, labels)
    loss.backward()
    close = {"rtol": 1e-6, "atol": 1e-9}
    torch.testing.assert_close(loss.detach(), g["loss"], **close)
    torch.testing.assert_close(layer.grad, g["grad_used_feature_layer"], **close)
    torch.testing.assert_close(head.weight.grad, g["grad_used_weight"], **close)
    torch.testing.assert_close(head.bias.grad, g["grad_used_bias"], **close)


@pytest.mark.parametrize("name", ["ccsam_stage2_C10"])
def test_cc_sam_stage_2(name):
    g, meta = golden(name)
    head, labels = head_of(g), g["labels"]
    features = g["inputs"] @ g["feature_layer"].T
    rarity = rarity_weights(g["cls_num_list"])
    torch.testing.assert_close(rarity.double(), g["class_weights"], rtol=1e-6, atol=0)
    moved = adversarial_features(features, head, labels, g["class_weights"])
    hard = g["class_weights"][labels] * F.cross_entropy(head(moved), labels, reduction="none")
    share = meta["alpha"]
    loss = share * hard.mean() + (1 - share) * F.cross_entropy(head(features), labels)
    loss.backward()
    torch.testing.assert_close(loss.detach(), g["loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(head.weight.grad, g["grad_used_weight"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["ce_sam", "imbsam", "focal_sam", "sam_a"])
def test_a_replayed_step_is_the_step(name, split, tapes, tmp_path):
    plain = training(make_cell(name, epochs=1), split, tmp_path / "a")
    meta = lines(plain)
    replayed = training(make_cell(name, epochs=1), split, tmp_path / "b", play=tapes)
    assert meta[0]["loss"] == pytest.approx(lines(replayed)[0]["loss"], rel=1e-4)
    torch.testing.assert_close(weights(replayed), weights(plain), rtol=1e-3, atol=1e-4)


def test_any_method_takes_it_from_the_protocol(split, tmp_path):
    settings = Optimizer(lr=0.05, sharpness=Sharpness(rho=0.1))
    climbed = training(make_cell("ldam_drw", epochs=1, optimizer=settings), split, tmp_path / "a")
    plain = training(make_cell("ldam_drw", epochs=1), split, tmp_path / "b")
    assert lines(climbed)[0]["loss"] != lines(plain)[0]["loss"]
    assert weights(climbed).isfinite().all()


def test_noise_moves_the_gradient_and_not_the_weights(split, tmp_path):
    settings = Optimizer(lr=0.05, sharpness=Sharpness(form="gaussian", rho=0.01, halve_every=1))
    run = training(make_cell(optimizer=settings, epochs=1), split, tmp_path)
    run.displacement.before_step(Clock(1, 9, 0, 9), None)
    noise = torch.cat([n.flatten() for n in run.displacement.noise])
    assert noise.abs().max() <= 0.01
    assert noise.std() == pytest.approx(0.01 / 3, rel=0.05)
    run.displacement.before_step(Clock(2, 9, 0, 9), None)
    assert torch.cat([n.flatten() for n in run.displacement.noise]).std() < noise.std() / 1.5
    before = weights(run)
    batch = next(iter(run.loader.epoch(0, 1, "shuffle", {})))
    run.optimizer.zero_grad()
    run.displacement.descend(batch.labels, lambda: run._backward(batch, 1), lambda: None)
    assert torch.equal(weights(run), before)


def test_noise_is_the_same_on_all_ranks_and_dropout_is_not(split, tmp_path, monkeypatch):
    settings = Optimizer(lr=0.05, sharpness=Sharpness(form="gaussian"))
    noises, draws = [], []
    for rank in (0, 1):
        monkeypatch.setattr("bench.ranks.rank", lambda rank=rank: rank)
        run = training(make_cell(optimizer=settings, epochs=1), split, tmp_path / str(rank))
        monkeypatch.setattr(run, "_step", lambda phase, batch: draws.append(torch.rand(())))
        next(run.steps(lambda line: None))
        noises.append(torch.cat([noise.flatten() for noise in run.displacement.noise]))
    assert torch.equal(*noises)
    assert draws[0] != draws[1]


def test_the_check_of_the_loss_keeps_no_graph_and_has_the_precision_of_the_run(split, tmp_path, monkeypatch):
    settings = Optimizer(lr=0.05, sharpness=Sharpness())
    run = training(make_cell(optimizer=settings, epochs=1), split, tmp_path)
    run.bfloat16 = True
    seen, loss = [], run.method.loss

    def watched(batch):
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return loss(batch)

    monkeypatch.setattr(run.method, "loss", watched)
    next(run.steps(lambda line: None))
    assert seen == [(False, True), (True, True), (True, True)]  # the check, the climb, the descent


@pytest.mark.parametrize("name", ["kcl", "causal_tde"])
def test_a_loss_that_moves_buffers_is_refused(name, split, tmp_path):
    views = ("main", "main") if name == "kcl" else ()
    settings = Optimizer(lr=0.05, sharpness=Sharpness())
    run = training(make_cell(name, optimizer=settings, views=views), split, tmp_path)
    before = {key: value.clone() for key, value in run.method.state_dict().items()}
    with pytest.raises(BenchError, match=r"takes the loss twice a step, and .*'s moves"):
        lines(run)
    assert all(torch.equal(value, before[key]) for key, value in run.method.state_dict().items())


def test_a_form_that_weighs_images_needs_what_each_costs(split, tmp_path):
    settings = Optimizer(sharpness=Sharpness(form="imbsam"))
    with pytest.raises(BenchError, match="'imbsam' weighs images, and RIDE has no loss of each"):
        training(make_cell("ride", optimizer=settings), split, tmp_path)


def test_two_sharpnesses_are_one_too_many():
    method = Linear(np.array([3, 2]), torch.zeros(2, 4), torch.zeros(2), torch.zeros(()))
    method.sharpness = Sharpness()
    with pytest.raises(BenchError, match="has a sharpness of its own"):
        displacement(method, Optimizer(sharpness=Sharpness()))
