"""DSCL and PBSD: the queue, the momentum copy, pooled boxes, and how the two stages work together."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import backbones, registry
from bench.errors import BenchError
from bench.method import Batch, Clock
from bench.randomness import generator
from methods.dscl import draw_boxes, dscl_loss, pbsd_loss, roi_mean
from methods.parts.momentum import MomentumCopy
from methods.parts.queue import KeyQueue

torch.set_num_threads(1)

COUNTS = np.array([40, 5, 120, 12])
CLOCK = Clock(0, 10, 0, 100)
tiny = partial(backbones.create, "resnet8_cifar")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(name, counts=COUNTS, **params):
    entry = registry.find(name)
    return entry.build(tiny, counts, **entry.hyperparameters(**params).model_dump()).train()


def batch_of(method, labels, side=16):
    size = len(labels)
    draws = {name: torch.from_numpy(box) for name, box in method.draws(generator("boxes"), size).items()}
    views = tuple(torch.randn(size, 3, view.side(side), view.side(side)) for view in method.views)
    return Batch(views, torch.tensor(labels), torch.arange(size), draws)


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


# -- the queue ----------------------------------------------------------------------------------------
def test_queue_starts_full_of_random_unit_keys():
    queue = KeyQueue(300, 8, 4)
    torch.testing.assert_close(queue.keys.norm(dim=-1), torch.ones(300))
    assert set(queue.labels.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("lead", [(), (3,)])
def test_queue_is_a_ring(lead):
    queue = KeyQueue(5, 2, 9, lead)
    seen_keys, seen_labels = [], []
    for size in (2, 2, 3, 1, 4):  # wraps twice, in the middle of a batch
        keys, labels = unit(*lead, size, 2), torch.randint(9, (size,))
        queue.stage(keys)
        queue.enqueue(labels)
        seen_keys.append(keys)
        seen_labels.append(labels)
    at = torch.arange(12 - 5, 12) % 5  # key number n lies in row n % size
    torch.testing.assert_close(queue.keys[..., at, :], torch.cat(seen_keys, dim=-2)[..., -5:, :])
    torch.testing.assert_close(queue.labels[at], torch.cat(seen_labels)[-5:])


def test_queue_keeps_the_last_of_a_batch_larger_than_itself():
    queue, keys = KeyQueue(3, 2, 9), unit(7, 2)
    queue.stage(keys)
    queue.enqueue(torch.arange(7))
    assert queue.labels.tolist() == [4, 5, 6]
    torch.testing.assert_close(queue.keys, keys[-3:])


def test_queue_class_means():
    queue = KeyQueue(3, 2, 4)
    queue.stage(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    queue.enqueue(torch.tensor([2, 2, 0]))
    means, present = queue.class_means(4)
    assert present.tolist() == [True, False, True, False]
    torch.testing.assert_close(means[2], torch.full((2,), math.sqrt(0.5)))
    torch.testing.assert_close(means[0], torch.tensor([0.0, -1.0]))


# -- the momentum copy --------------------------------------------------------------------------------
def test_momentum_copy_follows_slowly_and_without_gradient():
    online = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    copy = MomentumCopy(online, 0.9)
    start = copy.average[0].weight.clone()
    torch.testing.assert_close(start, online[0].weight)
    assert not any(p.requires_grad for p in copy.parameters())
    with torch.no_grad():
        online[0].weight.add_(1.0)
    online(torch.randn(4, 3))
    copy.update(online)
    torch.testing.assert_close(copy.average[0].weight, start + 0.1)
    assert copy.average[1].running_mean.eq(0).all()  # statistics stay the copy's own


# -- boxes and their pooling --------------------------------------------------------------------------
def roi_align_mean(feature_map, box, bins=2):
    """ROIAlign as its paper says it, sample by sample; mean over the bins."""
    height, width = feature_map.shape[-2:]

    def at(y, x):
        y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        top = feature_map[:, y0, x0] * (1 - (x - x0)) + feature_map[:, y0, x1] * (x - x0)
        low = feature_map[:, y1, x0] * (1 - (x - x0)) + feature_map[:, y1, x1] * (x - x0)
        return top * (1 - (y - y0)) + low * (y - y0)

    x0, y0, x1, y1 = (float(v) * s for v, s in zip(box, (width, height, width, height), strict=True))
    bin_w, bin_h = max(x1 - x0, 1.0) / bins, max(y1 - y0, 1.0) / bins
    across, down = math.ceil(bin_w), math.ceil(bin_h)
    pooled = [
        torch.stack(
            [
                at(y0 + row * bin_h + (i + 0.5) * bin_h / down, x0 + col * bin_w + (j + 0.5) * bin_w / across)
                for i in range(down)
                for j in range(across)
            ]
        ).mean(0)
        for row in range(bins)
        for col in range(bins)
    ]
    return torch.stack(pooled).mean(0)


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (1, 1), (2, 3)])
def test_roi_mean_is_roi_align(shape):
    maps = torch.randn(12, 5, *shape)
    boxes = torch.from_numpy(draw_boxes(generator("roi"), 12))
    expected = torch.stack([roi_align_mean(m, b) for m, b in zip(maps, boxes, strict=True)])
    torch.testing.assert_close(roi_mean(maps, boxes), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(roi_mean(torch.stack([maps, 2 * maps]), boxes)[1], 2 * roi_mean(maps, boxes))


def test_boxes_lie_inside_with_the_papers_areas_and_ratios():
    x0, y0, x1, y1 = draw_boxes(generator("boxes"), 4000).T
    assert min(x0.min(), y0.min()) >= 0
    assert max(x1.max(), y1.max()) <= 1
    area, ratio = (x1 - x0) * (y1 - y0), (x1 - x0) / (y1 - y0)
    assert area.min() == pytest.approx(0.05, abs=2e-3)
    assert area.max() == pytest.approx(0.6, abs=2e-3)
    assert area.mean() == pytest.approx(0.325, abs=0.01)
    assert ratio.min() == pytest.approx(3 / 4, abs=2e-3)
    assert ratio.max() == pytest.approx(4 / 3, abs=2e-3)
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.01)


# -- the losses ---------------------------------------------------------------------------------------
def test_without_others_of_the_class_only_the_own_key_pulls():
    query, key, queue = unit(2, 4), unit(2, 4), unit(3, 4)
    labels, queue_labels = torch.tensor([0, 1]), torch.tensor([2, 2, 3])
    rows = [torch.cat([query[1:], key, queue]), torch.cat([query[:1], key, queue])]  # all but itself
    expected = torch.stack(
        [F.cross_entropy((rows[i] @ query[i])[None] / 0.1, torch.tensor([1 + i])) for i in range(2)]
    ).mean()
    for beta in (8.0, 0.2, None):
        loss = dscl_loss(query, key, queue, labels, queue_labels, 0.1, beta)
        torch.testing.assert_close(loss, expected)


def test_plain_contrast_weights_all_positives_alike():
    query, key, queue = unit(3, 4), unit(3, 4), unit(6, 4)
    labels, queue_labels = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1, 1, 2, 2])
    everything, classes = torch.cat([query, key, queue]), torch.cat([labels, labels, queue_labels])
    expected = 0.0
    for i in range(3):
        kept = torch.arange(12) != i
        log_p = (everything[kept] @ query[i] / 0.1).log_softmax(0)
        expected -= log_p[classes[kept] == labels[i]].mean() / 3
    plain = dscl_loss(query, key, queue, labels, queue_labels, 0.1, None)
    torch.testing.assert_close(plain, torch.as_tensor(expected))
    assert not torch.isclose(plain, dscl_loss(query, key, queue, labels, queue_labels, 0.1, 8.0))


def test_decoupling_frees_the_own_key_from_the_size_of_the_class():
    """The share of the own key in the pull is 1 / (1 + beta), however many of its class are queued."""
    query, queue = unit(1, 4), unit(20, 4)
    for same in (1, 19):
        queue_labels = torch.arange(20).ge(same).long()
        for beta, share in ((8.0, 1 / 9), (None, 1 / (1 + same))):
            key = unit(1, 4)
            loss = dscl_loss(query, key, queue, torch.tensor([0]), queue_labels, 1.0, beta)
            log_p = (torch.cat([key, queue]) @ query[0]).log_softmax(0)
            expected = -share * log_p[0] - (1 - share) * log_p[1 : 1 + same].mean()
            torch.testing.assert_close(loss, expected)


def test_distillation_vanishes_where_the_student_agrees():
    teacher, key, queue = unit(5, 4, 8), unit(4, 8), unit(16, 8)
    assert pbsd_loss(teacher, teacher, key, queue, 0.07).item() == pytest.approx(0, abs=1e-6)
    assert pbsd_loss(teacher, teacher.flip(0), key, queue, 0.07).item() > 0.1


def test_losses_of_experts_are_averaged():
    query, key, queue = unit(3, 5, 4), unit(3, 5, 4), unit(3, 16, 4)
    labels, queue_labels = torch.randint(3, (5,)), torch.randint(3, (16,))
    together = dscl_loss(query, key, queue, labels, queue_labels, 0.1, 8.0)
    alone = [dscl_loss(query[i], key[i], queue[i], labels, queue_labels, 0.1, 8.0) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean())
    teacher, student = unit(2, 3, 5, 4), unit(2, 3, 5, 4)
    alone = [pbsd_loss(teacher[:, i], student[:, i], key[i], queue[i], 0.1) for i in range(3)]
    torch.testing.assert_close(pbsd_loss(teacher, student, key, queue, 0.1), torch.stack(alone).mean())


# -- the method ---------------------------------------------------------------------------------------
def test_names_switch_the_parts_on_and_off():
    assert [len(make(name).views) for name in ("dscl", "pbsd", "dscl_pbsd")] == [2, 7, 7]
    assert [make(name).beta for name in ("dscl", "pbsd", "dscl_pbsd")] == [8.0, None, 8.0]
    assert make("dscl").draws(generator("boxes"), 3) == {}
    views = make("dscl_pbsd", patches=2, patch_size=8).views
    assert [(view.policy, view.patch_of, view.boxes, view.size) for view in views[2:]] == [
        ("dscl_patch", 0, "box0", 8),
        ("dscl_patch", 0, "box1", 8),
    ]


@pytest.mark.parametrize("name", ["dscl_pbsd", "dscl_pbsd_ensemble"])
def test_keys_enter_the_queue_and_the_key_encoder_moves_only_after_the_step(name):
    method = make(name, queue=64, momentum=0.9, patches=1)
    batch = batch_of(method, [0, 1, 2, 2, 3])
    queued, slow = method.queue.keys.clone(), [p.clone() for p in method.key_backbone.parameters()]
    method.loss(batch).backward()
    torch.testing.assert_close(method.queue.keys, queued)
    assert all(p.grad is None for p in method.key_backbone.parameters())
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1.0)
    method.after_step(CLOCK, batch)
    assert not torch.equal(method.queue.keys[..., :5, :], queued[..., :5, :])
    torch.testing.assert_close(method.queue.keys[..., 5:, :], queued[..., 5:, :])
    assert method.queue.labels[:5].tolist() == [0, 1, 2, 2, 3]
    for now, before in zip(method.key_backbone.parameters(), slow, strict=True):
        torch.testing.assert_close(now, before + 0.1)


def test_gradient_reaches_the_encoder_but_not_through_the_teacher():
    method = make("dscl_pbsd", patches=1, queue=32, distill=1.0)
    batch = batch_of(method, [0, 1, 2, 2])
    method.loss(batch).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.projector.parameters())
    teacher = unit(1, 4, 8).requires_grad_()
    student = unit(1, 4, 8).requires_grad_()
    pbsd_loss(teacher, student, unit(4, 8), unit(6, 8), 0.1).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_scores_are_distances_to_the_mean_keys_of_the_classes():
    method = make("dscl", queue=8).eval()
    torch.nn.init.zeros_(method.projector[2].weight)  # of the query encoder, which has no part in it
    images = torch.randn(2, 3, 16, 16)
    keys = F.normalize(method.key_projector(method.key_backbone(images)), dim=-1).detach()
    method.queue.keys.copy_(keys.repeat(4, 1))
    method.queue.labels.copy_(torch.tensor([0, 2] * 4))  # classes 1 and 3 have no key
    scores = method(images).detach()
    torch.testing.assert_close(scores[[0, 1], [0, 2]], torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores[0, 2], -(keys[0] - keys[1]).square().sum(), rtol=1e-3, atol=1e-5)
    assert scores[:, [1, 3]].eq(-4).all()


def test_pbsd_refuses_a_backbone_without_a_feature_map():
    entry = registry.find("pbsd")
    vit = partial(
        backbones.create,
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=8,
        depth=1,
        embed_dim=48,
        num_heads=3,
    )
    method = entry.build(vit, COUNTS, **entry.hyperparameters(patches=1, patch_size=16, queue=8).model_dump())
    with pytest.raises(BenchError, match="feature map"):
        method.loss(batch_of(method, [0, 1, 2]))


# -- the second stage ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("first", "second"), [("dscl", "dscl_linear"), ("dscl_pbsd_ensemble", "dscl_ensemble_linear")]
)
def test_the_linear_stage_trains_a_classifier_on_the_frozen_query_encoder(first, second):
    parent, method = make(first), make(second)
    method.start_from(parent)
    method.train()
    for mine, its in zip(method.backbone.parameters(), parent.backbone.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
    groups = method.param_groups()
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in method.head.parameters()}
    assert method.sampler(0, 10) == "class_balanced"
    assert method.views[0].policy == parent.views[0].policy == "dscl_query_large"
    assert method.backbone.training  # quirk: statistics follow the balanced batches
    weights = torch.cat([w.flatten() for n, w in method.head.named_parameters() if n.endswith("weight")])
    assert weights.std().item() == pytest.approx(0.01, rel=0.2)
    assert method.loss(batch_of(method, [0, 1, 2])).isfinite()


def test_the_linear_stage_refuses_another_backbone():
    with pytest.raises(BenchError, match="child of its kind"):
        make("dscl_linear").start_from(make("dscl_pbsd_ensemble"))
    with pytest.raises(BenchError, match="experts and width"):
        make("dscl_ensemble_linear", experts=2).start_from(make("dscl_pbsd_ensemble"))


# -- all of it ----------------------------------------------------------------------------------------
def test_it_learns_the_digits_and_the_linear_stage_improves_on_it():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 8 - 1).float()[:, None].expand(-1, 3, -1, -1)
    labels = torch.from_numpy(digits.target)
    train, test = slice(0, 600), slice(1200, 1600)

    def shifted(rng, views):  # a view is the image, moved by up to a pixel
        moves = rng.integers(-1, 2, (views, 2))
        return lambda x: tuple(x.roll((int(a), int(b)), (2, 3)) for a, b in moves)

    def fit(method, epochs, lr):
        optimizer = torch.optim.SGD(method.param_groups(), lr=lr, momentum=0.9)
        rng = generator("digits")
        for _ in range(epochs):
            method.train()
            for rows in np.array_split(rng.permutation(600), 12):
                views = shifted(rng, len(method.views))(images[train][rows])
                batch = Batch(views, labels[train][rows], torch.from_numpy(rows))
                optimizer.zero_grad()
                method.loss(batch).backward()
                optimizer.step()
                method.after_step(CLOCK, batch)

    def accuracy(method):
        with torch.inference_mode():
            return (method.eval()(images[test]).argmax(1) == labels[test]).float().mean().item()

    counts = np.full(10, 60)
    parent = make("dscl", counts, queue=256, momentum=0.5)
    fit(parent, 8, 0.02)
    child = make("dscl_linear", counts)
    child.start_from(parent)
    fit(child, 2, 1.0)
    assert accuracy(parent) > 0.7
    assert accuracy(child) > 0.8
