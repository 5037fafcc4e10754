"""What the methods of 2022 to 2025 do beyond their losses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_cells import COUNTS, batch_for, cell_of, step

from bench import registry
from bench.errors import BenchError
from bench.method import Batch, Clock
from bench.train.build import build
from methods.area import area_weights, spread_order
from methods.dbm import dbm_logits, dbm_margins
from methods.dirmixe import prior_centres
from methods.etf import simplex
from methods.mdcs import mdcs_loss
from methods.ride_stages import route, routing_loss
from methods.sbcl import clusters_per_class, split_classes

torch.set_num_threads(1)

LABELS = [0, 4, 4, 8, 8, 2, 6, 1]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained(name: str, steps: int = 1, **params):
    """A method after some steps, and the batch it saw."""
    method = build(cell_of(name, **params), COUNTS).train()
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05)
    batch = batch_for(method, LABELS, 16)
    for number in range(steps):
        clock = Clock(number, steps, number, steps)
        method.before_epoch(clock)
        step(method, optimizer, batch, clock)
    return method, batch


@pytest.mark.parametrize("name", ["los", "cc_sam", "dr_h2t", "mislas_h2t", "gcl_h2t", "sbcl", "ride_routed"])
def test_second_stages_leave_the_backbone_alone(name):
    before = build(cell_of(name), COUNTS)
    after, _ = trained(name, steps=3)
    same = zip(before.backbone.parameters(), after.backbone.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    learning = [p for p in after.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert learning


@pytest.mark.parametrize("name", ["los", "cc_sam", "dr_h2t"])
def test_the_classifier_goes_on_from_its_parent_s(name):
    parent = build(cell_of(registry.find(name).build.usual_parent), COUNTS)
    child = registry.find(name).build(partial(_same, parent.backbone), COUNTS)
    child.start_from(parent)
    assert torch.equal(child.head.weight, parent.head.weight)


def _same(backbone, **overrides):
    import copy

    return copy.deepcopy(backbone)


def test_dbm_adds_an_angle_for_rare_classes_and_more_where_it_is_wrong():
    cosines = torch.tensor([[0.5, 0.1], [0.1, 0.5]])
    labels = torch.tensor([0, 0])
    margins = dbm_margins(torch.tensor([10, 100]), 0.1, 1.0)
    torch.testing.assert_close(margins, torch.tensor([0.1, 0.01]))
    logits = dbm_logits(cosines, labels, margins, 1.0, 1.0)
    right, wrong = (cosines[:, 0].acos() - logits[:, 0].acos()).neg()
    assert right.item() == pytest.approx(0.1, abs=1e-5)
    assert wrong.item() == pytest.approx(0.1 * (1 + 0.9 / 2), abs=1e-5)
    assert torch.equal(logits[:, 1], cosines[:, 1])
    plain = dbm_logits(cosines, labels, torch.zeros(2), 32.0, 1.0)
    torch.testing.assert_close(plain, 32 * cosines)


def test_a_simplex_has_equal_angles_and_unit_vertices():
    vertices = simplex(12, 10)
    cosines = vertices.T @ vertices
    expected = torch.full((10, 10), -1 / 9).fill_diagonal_(1.0)
    torch.testing.assert_close(cosines, expected, atol=1e-5, rtol=0)


def test_etf_learns_no_classifier():
    before, (after, _) = build(cell_of("etf_dr"), COUNTS), trained("etf_dr", steps=3)
    assert torch.equal(before.head.vertices, after.head.vertices)
    assert {name for name, _ in after.head.named_parameters()} == {"norm.weight", "norm.bias"}


def test_inc_s_means_have_a_rate_of_their_own():
    method, batch = trained("inc", steps=1)
    before = method.means.clone()
    method.before_step(Clock(0, 1, 0, 1), batch)
    method.loss(batch).backward()
    method.after_step(Clock(0, 1, 0, 1), batch)
    torch.testing.assert_close(method.means, before - 0.5 * method.pull)
    assert method.pull.abs().max() > 0
    assert not any(p is method.means for group in method.param_groups() for p in group["params"])


def test_mdcs_distils_only_what_the_weak_view_has_right():
    labels = torch.tensor([0, 1])
    wrong = torch.tensor([[[0.0, 5.0], [5.0, 0.0]]])
    right = torch.tensor([[[5.0, 0.0], [0.0, 5.0]]])
    strong = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    none = torch.zeros(1, 2)

    def distilled(weak):
        logits = torch.cat([weak, strong], dim=1)
        return mdcs_loss(logits, labels, none, 1.0) - mdcs_loss(logits, labels, none, 0.0)

    assert distilled(wrong) == 0
    expected = F.kl_div(strong[0].log_softmax(1), right[0].softmax(1), reduction="batchmean")
    torch.testing.assert_close(distilled(right), expected)


def test_mdcs_distils_more_from_epoch_to_epoch():
    method = build(cell_of("mdcs", distil_warmup=4), COUNTS)
    ramps = []
    for epoch in range(6):
        method.before_epoch(Clock(epoch, 6, 0, 6))
        ramps.append(method.ramp.item())
    assert ramps == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_dirmixe_draws_about_its_centres():
    method = build(cell_of("dirmixe"), COUNTS)
    drawn = method.draws(np.random.default_rng(0), 3000)
    centres = prior_centres(torch.tensor(COUNTS))
    for number, centre in enumerate(centres):
        mean = drawn["prior"][drawn["component"] == number].mean(axis=0)
        np.testing.assert_allclose(mean, centre, atol=1e-3)
    ranks = centres[0].argsort()
    torch.testing.assert_close(centres[2][ranks], centres[0][ranks].flip(0))


def test_dirmixe_penalises_the_spread_late():
    method = build(cell_of("dirmixe"), COUNTS)
    seen = []
    for epoch in (0, 7, 8, 9):
        method.before_epoch(Clock(epoch, 10, 0, 10))
        seen.append(method.spread.item())
    assert seen == [0, 0, 5, 5]


def test_the_router_asks_further_experts_only_one_after_the_other():
    means = torch.arange(6.0).view(3, 2, 1).expand(3, 2, 4)
    nobody, all_of_them = torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(route(means, nobody), means[0])
    assert torch.equal(route(means, all_of_them), means[2])
    second_only = torch.tensor([[False, True], [True, True]])
    assert torch.equal(route(means, second_only), torch.stack([means[0, 0], means[2, 1]]))


def test_a_router_learns_where_later_experts_help():
    labels = torch.tensor([0, 0, 0])
    wrong, right = [0.0, 1.0], [1.0, 0.0]
    means = torch.tensor([[wrong, right, wrong], [right, wrong, wrong]])
    expected = F.binary_cross_entropy_with_logits(
        torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]), pos_weight=torch.tensor(100.0)
    )
    torch.testing.assert_close(routing_loss(means, torch.zeros(1, 3), labels, 100.0), expected)


def test_a_teacher_is_no_part_of_its_pupil():
    method, _ = trained("ride_distill")
    assert not any("teacher" in name for name in method.state_dict())
    teacher = method.teacher._method[0]
    assert not any(p.requires_grad for p in teacher.parameters())
    method.double()
    assert next(teacher.parameters()).dtype == torch.float64  # it moves with its pupil


def test_ride_learns_from_a_ride():
    method = build(cell_of("ride_distill"), COUNTS)
    with pytest.raises(BenchError, match="learns from a ride, not from CrossEntropy"):
        method.start_from(build(cell_of("ce"), COUNTS))


def test_area_weighs_against_classes_that_cover_much():
    spread = torch.randn(40, 8)
    narrow = torch.randn(40, 1) * torch.randn(8) + 0.01 * torch.randn(40, 8)
    features, labels = torch.cat([spread, narrow]), torch.tensor([0, 1]).repeat_interleave(40)
    order = torch.randperm(80)
    weights = area_weights(features[order], labels[order], 3, 20)
    assert weights[1] != weights[0]
    assert weights.sum() == pytest.approx(3)
    assert weights.isfinite().all()  # the third class has no image


def test_area_asks_for_the_training_images_late():
    method = build(cell_of("area"), COUNTS).eval()
    wanted = [method.wants_training_set(Clock(e, 10, 0, 10)) for e in (0, 7, 8, 9)]
    assert wanted == [False, False, True, True]
    images, labels = torch.randn(20, 3, 16, 16), torch.arange(20) ** 2 % 10
    halves = [(images[:12], labels[:12]), (images[12:], labels[12:])]
    with torch.no_grad():
        method.read_training_set(Clock(8, 10, 0, 10), halves)
    assert method.area_weights.sum() == pytest.approx(10)
    assert method.area_weights.unique().numel() > 1


@pytest.mark.parametrize("count", [1, 2, 10, 379, 1000])
def test_the_order_of_area_has_everybody_once(count):
    assert spread_order(count).sort().values.tolist() == list(range(count))


def test_sbcl_splits_frequent_classes_only():
    counts = torch.tensor([40, 5, 12, 90])
    assert clusters_per_class(counts, 10).tolist() == [4, 1, 1, 9]
    assert clusters_per_class(torch.tensor([40, 20]), 10).tolist() == [2, 1]
    labels = torch.tensor([0] * 40 + [1] * 5)
    corners = F.normalize(torch.randn(4, 6), dim=1)
    near = F.normalize(corners.repeat_interleave(10, dim=0) + 0.01 * torch.randn(40, 6), dim=1)
    found = split_classes(torch.cat([near, corners[:1].expand(5, 6)]), labels, [4, 1])
    assert len(found[:40].unique()) == 4
    assert set(found[:40].tolist()).isdisjoint(found[40:].tolist())
    for corner in found[:40].view(4, 10):
        assert len(corner.unique()) == 1


def test_sbcl_clusters_every_few_epochs_after_its_warmup():
    method = build(cell_of("sbcl_stage_1", every=3, warmup=2), COUNTS)
    assert [e for e in range(12) if method.wants_training_set(Clock(e, 12, 0, 12))] == [2, 5, 8, 11]
    method.before_epoch(Clock(1, 12, 0, 12))
    assert not method.clustered
    method.before_epoch(Clock(2, 12, 0, 12))
    assert method.clustered


def test_h2t_without_channels_is_the_stage_it_goes_into():
    method, plain = (build(cell_of(name), COUNTS).eval() for name in ("gcl_h2t", "gcl"))
    method.replaced = 0.0
    method.load_state_dict(plain.state_dict())
    batch = batch_for(method, LABELS, 16)
    assert torch.equal(method.loss(batch), plain.loss(batch))
    method.replaced = 0.25
    assert not torch.equal(method.loss(batch), plain.loss(batch))


def test_h2t_keeps_labels_and_changes_features():
    method, batch = trained("dr_h2t")
    usual = Batch((batch.images.flip(0),), batch.labels.flip(0), batch.positions)
    batch = replace(batch, extra=usual)
    losses = []
    for share in (0.0, 0.25):
        method.replaced = share
        method.eval()
        losses.append(method.loss(batch).item())
    outputs = method(batch.images)
    assert losses[0] == pytest.approx(F.cross_entropy(outputs, batch.labels).item(), rel=1e-4)
    assert losses[1] != losses[0]


def test_sure_re_weights_what_it_is_sure_of():
    method = build(cell_of("sure_re_weighting"), COUNTS)
    images = torch.randn(20, 3, 16, 16)
    method.before_training([(images[:9], None), (images[9:], None)])
    sure = method.eval()(images).softmax(dim=1).amax(dim=1)
    weights = method.image_weights[:20]
    assert weights.argsort().tolist()[:1] == [int(sure.argmax())] or weights.max() == 1
    assert (weights <= 1).all()
    assert not any(m.training for m in method.train().modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_dbm_on_bcl_needs_cosines():
    assert registry.find("dbm_bcl").choose().params["scale"] == 32.0
    with pytest.raises(BenchError, match="classifier"):
        build(cell_of("dbm_bcl", classifier="linear"), COUNTS)
