"""LIFT+'s league and GNM-PT: what is tuned, from where the classifier starts, and what a step descends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_values import golden
from tiny_vit import COUNTS, batch_of, make, tiny
from torch import nn

from bench.cell import Sharpness
from bench.data.augment import policy
from bench.data.augment.operations import ResizedCrop
from bench.errors import BenchError
from bench.method import Clock, Method
from bench.train.displaced import Displacement
from methods.gcl import cloud_sizes, clouded_cosines, margin_logits
from methods.parts.heads import CosineHead
from methods.parts.prompts import PromptedBlock, prompt_count
from methods.parts.weights import effective_number_weights, weighted_cross_entropy

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def learning(method) -> set[str]:
    known = {id(p) for group in method.param_groups() for p in group["params"]}
    return {name for name, p in method.named_parameters() if id(p) in known}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("lift_plus", ".adapter."),
        ("clip_prompt_tuning", ".prompts"),
        ("gnm_pt", ".prompts"),
        ("vpt_ce", ".prompts"),
    ],
)
def test_only_what_tunes_the_backbone_learns(name, part):
    found = learning(make(name))
    assert {n for n in found if not n.startswith("head.")} == {
        n for n, _ in make(name).named_parameters() if part in n
    }
    assert "head.weight" in found


def test_a_linear_probe_learns_the_head_and_full_tuning_all():
    assert learning(make("clip_linear_probe")) == {"head.weight"}
    full = make("clip_full_fine_tuning")
    assert learning(full) == {name for name, _ in full.named_parameters()}


@pytest.mark.parametrize(("classes", "blocks", "count"), [(100, 12, 8), (1000, 12, 64), (10, 12, 1)])
def test_prompts_follow_the_number_of_classes(classes, blocks, count):
    assert prompt_count(classes, blocks) == count


def test_prompts_end_with_their_block_unless_kept():
    block = tiny().stages["all"].model.blocks[0]
    tokens = torch.randn(2, 5, 48)
    shown, kept = (PromptedBlock(block, 48, 3, kept=kept)(tokens) for kept in (False, True))
    assert shown.shape == (2, 5, 48)
    assert kept.shape == (2, 8, 48)
    assert not torch.allclose(shown, block(tokens))


def test_text_features_are_where_the_classifier_starts(tmp_path):
    file = tmp_path / "text.npy"
    vectors = np.random.default_rng(0).normal(size=(len(COUNTS), 48)).astype(np.float32)
    np.save(file, vectors)
    method = make("clip_linear_probe", text_features=str(file))
    method.before_training(iter(()))
    torch.testing.assert_close(method.head.weight.detach(), F.normalize(torch.tensor(vectors), dim=1))


def test_text_features_that_do_not_fit_are_reported(tmp_path):
    file = tmp_path / "text.npy"
    method = make("lift_plus", text_features=str(file))
    with pytest.raises(BenchError, match=r"text.npy: text_features: .*No such file.*name a .npy file"):
        method.before_training(iter(()))
    np.save(file, np.zeros((3, 48), np.float32))
    with pytest.raises(BenchError, match=r"float32 of shape \(3, 48\); it needs numbers of shape \(4, 48\)"):
        method.before_training(iter(()))
    file.write_bytes(b"no array")
    with pytest.raises(BenchError, match="text_features"):
        method.before_training(iter(()))


def test_minimal_crops_grow_to_the_whole_image():
    rule = policy("minimal_crop")
    least = []
    for epoch in range(5):
        drawn = rule.at(epoch, 5).draw(np.random.default_rng(0), 4000, 32)["minimalcrop.box"]
        width, height = drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1]
        assert (width == height).all()
        least.append((width * height).min() / 32**2)
    u = np.arange(5) / 4
    expected = 0.08 + 0.92 * (1 - np.sqrt(1 - u * u))
    np.testing.assert_allclose(least, expected, atol=0.04)
    assert least[-1] == 1.0


def test_other_policies_are_the_same_in_every_epoch():
    rule = policy("resized_crop_flip")
    assert rule.at(3, 5) == rule
    assert isinstance(rule.geometry_ops[0], ResizedCrop)


def test_gnm_s_steps_are_the_authors():
    g, meta = golden("gnm_step_C10")
    labels, counts = g["labels"], g["cls_num_list"]
    head = CosineHead(32, 10)
    with torch.no_grad():
        head.weight.copy_(g["weight_before"])
    holder = _Holder(head)
    settings = Sharpness(form="gaussian", rho=meta["rho"] * meta["dis_mul"], halve_every=59)
    step = Displacement(holder, settings)
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=meta["lr"],
        momentum=meta["momentum"],
        weight_decay=meta["weight_decay"],
    )
    cloud = meta["noise_mul"] * cloud_sizes(counts)
    losses = []
    for number, epoch in enumerate(meta["epochs"]):
        late = epoch > meta["reweight_epoch"]
        weights = effective_number_weights(counts, meta["beta"]) if late else torch.ones(10)

        def backward(number=number, weights=weights):
            if number == 0:
                torch.testing.assert_close(head.weight.detach(), g["perturbed_0"], rtol=1e-5, atol=1e-7)
            cosines = clouded_cosines(head(g["features"]), g["logit_noise"][number], cloud)
            logits = margin_logits(cosines, labels, meta["m"], meta["s"])
            loss = weighted_cross_entropy(logits, labels, weights)
            loss.backward()
            return loss.detach()

        optimizer.zero_grad()
        step.before_step(Clock(epoch, 70, 0, 70), None)
        size = step.settings.rho * 0.5 ** ((epoch - 1) // 59)
        assert step.noise[0].abs().max() <= size
        step.noise[0].copy_(size * g["weight_noise"][number].clamp(-1, 1))
        losses.append(step.descend(labels, backward, lambda: None))
        optimizer.step()
        name = {0: "weights_after_first", 2: "weights_after_last"}.get(number)
        if name:
            torch.testing.assert_close(head.weight.detach(), g[name], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(torch.stack(losses), g["losses"], rtol=1e-5, atol=1e-6)


class _Holder(Method):
    """A method that learns nothing but a head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__(None, np.array([5, 3]))
        self.head = head


def test_gnm_pt_reads_the_class_token_and_the_last_prompts():
    method = make("gnm_pt", prompts=3).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = method.backbone.feature_map(images)
    assert tokens.shape[1] == 1 + 16 + 3
    features = (tokens[:, 0] + tokens[:, -3:].mean(dim=1)) / 2
    torch.testing.assert_close(method(images), method.head(features))
    assert method.sharpness.form == "gaussian"
    assert make("vpt_ce").sharpness is None


def test_gcl_s_noise_is_not_drawn_for_cross_entropy():
    rng = np.random.default_rng(0)
    assert make("vpt_ce").draws(rng, 4) == {}
    assert make("gnm_pt").draws(rng, 4)["noise"].shape == (4, 4)
    loss = make("vpt_ce").train().loss(batch_of([0, 1, 2, 2]))
    assert loss.isfinite()
