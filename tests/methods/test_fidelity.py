"""What a whole training has from its authors beside the loss: starts, embeddings, views, second batches."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import backbones, registry
from bench.data.augment import policy
from bench.data.feed import samplers
from bench.errors import BenchError
from bench.method import Batch, Clock, View
from bench.randomness import generator
from methods.parts.heads import CosineHead
from methods.parts.mixing import cutmix

COUNTS = np.array([40, 5, 120, 12])
tiny = partial(backbones.create, "resnet8_cifar")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(name, backbone=tiny, **params):
    entry = registry.find(name)
    return entry.build(backbone, COUNTS, **entry.hyperparameters(**params).model_dump())


def batch_of(method, labels, side=16):
    rng = generator("fidelity")
    draws = {key: torch.from_numpy(rows) for key, rows in method.draws(rng, len(labels)).items()}
    views = tuple(torch.randn(len(labels), 3, side, side) for _ in method.views)
    return Batch(views, torch.tensor(labels), torch.arange(len(labels)), draws)


# -- how classifiers start ----------------------------------------------------------------------------
def test_class_vectors_start_at_unit_length_or_are_cut_where_bccl_cuts_them():
    ones = CosineHead(64, 10).weight.norm(dim=1)
    torch.testing.assert_close(ones, torch.ones(10))
    bccl = make("bccl").head.weight.norm(dim=1)
    assert (bccl > 4).all(), "64 numbers of [-1, 1] have a length of about 4.6"
    assert (bccl <= 5.001).all()
    wide = CosineHead(512, 10, longest=5.0).weight
    torch.testing.assert_close(wide.norm(dim=1), torch.full((10,), 5.0))


# -- the embedding before margin heads ----------------------------------------------------------------
@pytest.mark.parametrize("name", ["arcface", "cosface", "am_softmax", "sphereface"])
def test_margin_heads_have_an_embedding_whose_cosines_have_both_signs(name):
    method = make(name).train()
    features = method.backbone(torch.randn(32, 3, 16, 16))
    cosines = F.normalize(features) @ F.normalize(features).T
    assert features.shape[1] == method.backbone.num_features == 64
    assert cosines.min() < -0.2
    bare = make(name, embedding=None).train()
    features = bare.backbone(torch.randn(32, 3, 16, 16))
    assert (F.normalize(features) @ F.normalize(features).T).min() >= 0


def test_cross_entropy_can_have_the_same_embedding_and_has_none_by_default():
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in make("ce").modules())
    method = make("ce", embedding=24, auxiliary=("arcface",))
    assert method.head.in_features == method.auxiliary["arcface"].weight.shape[1] == 24
    method.loss(batch_of(method, [0, 1, 2, 3])).backward()
    (norm,) = (m for m in method.modules() if isinstance(m, torch.nn.BatchNorm1d))
    assert norm.weight.grad is not None
    assert method.eval()(torch.randn(2, 3, 16, 16)).shape == (2, 4)


def test_a_second_stage_goes_on_from_an_embedding_only_with_one_of_its_own():
    parent = make("ce", embedding="same")
    child = make("crt", embedding="same")
    child.start_from(parent)
    torch.testing.assert_close(child.backbone.state_dict(), parent.backbone.state_dict())
    with pytest.raises(BenchError, match="not the one its child builds"):
        make("crt").start_from(parent)


def test_an_embedding_is_refused_where_there_is_no_one_feature_to_embed():
    with pytest.raises(BenchError, match="embedding: takes one feature per image"):
        make("ride", embedding="same")


# -- RSG, GML, GLMC, LIFT -----------------------------------------------------------------------------
def test_rsg_re_weights_late_and_re_samples_only_where_it_is_reported_to():
    method = make("rsg")
    assert method.generator.centers.shape[:2] == (4, 15)
    assert method.generator.contrast[0].out_channels == 256
    assert method.margins.max() == 0.5
    assert {method.sampler(epoch, 200) for epoch in range(200)} == {"shuffle"}
    for epoch, even in ((159, True), (160, False)):
        method.before_epoch(Clock(epoch, 200, 0, 200))
        assert torch.equal(method.class_weights.now, torch.ones(4)) == even
    sampled = make("rsg", resample=True)
    assert [sampled.sampler(epoch, 200) for epoch in (159, 160)] == ["shuffle", "effective_number"]


def test_gml_learns_from_a_deeper_teacher_but_not_from_one_of_another_width():
    teacher = make("gml_teacher", partial(tiny, blocks=2))
    assert teacher.head.scale == 30
    student = make("gml", queue=64)
    student.start_from(teacher)
    student.train().loss(batch_of(student, [0, 1, 2, 2])).backward()
    assert all(p.grad is None for p in student.teacher_backbone.parameters())
    with pytest.raises(BenchError, match="width 128, its student of 64"):
        make("gml").start_from(make("gml_teacher", partial(tiny, width=2)))


def test_glmcs_second_batch_is_drawn_with_replacement_and_perhaps_re_sampled():
    assert make("glmc").extra_sampler == "instance"
    assert make("glmc", resample=True).extra_sampler == "power_0.8"
    assert {"instance", "power_0.8"} <= set(samplers.SAMPLERS)


def test_glmcs_box_rounds_its_side_up_before_it_is_halved():
    images, others = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    side = 9.5  # floor 9 -> 8 pixels, ceil 10 -> 10 pixels
    weight, centre = torch.tensor([1 - (side / 32) ** 2]), torch.tensor([[0.5, 0.5]])
    labels = torch.tensor([0])
    cut = [cutmix(images, labels, others, labels, weight, centre, *whole) for whole in ((), (torch.ceil,))]
    assert [int(mix.images[0, 0].sum()) for mix in cut] == [64, 100]


def test_lift_scores_the_centre_of_an_eighth_more_where_images_are_smaller():
    vit = partial(backbones.create, "vit_tiny_patch16_224", img_size=28, patch_size=4, depth=1)
    method, images = make("lift", vit).eval(), torch.randn(2, 3, 14, 14)
    larger = F.interpolate(images, size=(32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(method(images), method.head(method.backbone(larger[..., 2:30, 2:30])))
    whole = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(method(whole), method.head(method.backbone(whole)))


# -- views in shares of the image ---------------------------------------------------------------------
def radii(name, side):
    return policy(name).draw(generator("blur"), 4000, side)["blur.radius"]


@pytest.mark.parametrize(("name", "meant_for"), [("dscl_query", 224), ("dscl_patch", 64)])
def test_dscls_blur_is_the_authors_share_of_the_side(name, meant_for):
    for side, share in ((meant_for, 1), (meant_for // 4, 1 / 4)):
        drawn = radii(name, side) / share
        assert 0.1 <= drawn.min() < 0.2
        assert 1.9 < drawn.max() <= 2
    assert radii(name, 2 * meant_for).max() == 2.4, "no further than the blur goes"
    assert 1.9 < radii("simclr_blur", 32).max() <= 2, "others stay in pixels, as their authors have them"


def test_a_views_size_is_in_pixels_or_a_share_of_the_side():
    assert [View(size=size).side(32) for size in (None, 16, 0.5, 64 / 224)] == [32, 16, 16, 9]
    assert View(size=0.5).side(224) == 112


@pytest.mark.parametrize("name", ["dscl", "dscl_linear"])
def test_dscl_crops_a_fifth_at_least_and_the_authors_share_where_it_is_reported_to(name):
    named = [{view.policy for view in make(name, crops=crops).views} for crops in ("large", "small")]
    expected = {"dscl_query", "dscl_key"} if name == "dscl" else {"dscl_query"}
    assert named == [{f"{policy}_large" for policy in expected}, expected]
    assert policy("dscl_query_large").geometry_ops[0].scale == (0.2, 1.0)


# -- class-aware batches ------------------------------------------------------------------------------
def test_class_aware_batches_have_four_images_of_a_class_and_repeat_nothing_before_all_came():
    labels = generator("labels").permutation(np.repeat(np.arange(5), (40, 24, 16, 8, 4)))
    order = samplers.order("class_aware", labels, generator("order"))
    assert len(order) == len(labels) == 92
    turns = labels[order].reshape(-1, 4)
    assert (turns == turns[:, :1]).all()
    rounds = turns[:20, 0].reshape(4, 5)
    assert (np.sort(rounds, axis=1) == np.arange(5)).all()
    for label, count in enumerate((40, 24, 16, 8, 4)):
        seen = order[labels[order] == label]
        whole = seen[: len(seen) // count * count].reshape(-1, count)
        assert all(len(set(images)) == count for images in whole)
