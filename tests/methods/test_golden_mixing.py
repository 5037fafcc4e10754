"""Mixed images and their labels: against the authors' values where there are some, and by what must hold."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_values import golden

from bench import backbones, registry
from bench.method import Batch, Clock
from bench.randomness import generator
from methods.ldam import ldam_loss
from methods.parts.mixing import Mix, batch_wide, cutmix, mixed_loss, mixup, shuffled
from methods.remix import remix_weights
from methods.unimix import drawn, partner_probabilities, unimix_weights

torch.set_num_threads(1)

COUNTS = np.array([40, 5, 120, 12])


def build(name, **params):
    torch.manual_seed(0)
    entry = registry.find(name)
    make_backbone = partial(backbones.create, "resnet8_cifar")
    method = entry.build(make_backbone, COUNTS, **entry.hyperparameters(**params).model_dump())
    return method.eval()  # batch statistics aside, a loss can be computed again


def batch_for(method, labels=(0, 1, 2, 3, 2, 0), **draws):
    y, size = torch.tensor(labels), len(labels)
    drawn_now = method.draws(generator("mixing"), size)
    drawn_now = {name: torch.from_numpy(array) for name, array in drawn_now.items()}
    drawn_now |= {name: torch.full((size,), value) for name, value in draws.items()}
    images = torch.rand(size, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    extra = Batch((-images,), y.flip(0), torch.arange(size)) if method.extra_sampler else None
    return Batch((images,), y, torch.arange(size), drawn_now, extra)


# -- golden ---------------------------------------------------------------------------------------
def test_remix_label_weights():
    g, hp = golden("classic_remix_c10")
    assert (hp["kappa"], hp["tau"]) == (3.0, 0.5)
    for weight in (0.2, 0.45, 0.7, 0.9):
        weights = torch.full((16,), weight)
        mix = Mix(torch.empty(0), g["in_labels_a"], g["in_labels_b"], weights)
        expected = g[f"out_lam_y_at_{weight}"].float()
        torch.testing.assert_close(remix_weights(mix, g["in_cls_num"], 3.0, 0.5), expected)


def test_unimix_weights_and_partners():
    g, _ = golden("classic_unimix_c10")
    labels, partners, counts = g["in_labels_a"], g["in_labels_b"], g["in_cls_num"]
    weights = unimix_weights(labels, partners, counts, g["in_beta_draws"].float())
    torch.testing.assert_close(weights, g["out_lam"].float())
    for tau in (-0.1, -0.5, -1.0):
        expected = g[f"out_partner_prob_tau{tau}"].float()
        torch.testing.assert_close(partner_probabilities(labels, counts, tau), expected)


# -- mixes ----------------------------------------------------------------------------------------
def test_mixup_blends_each_image_by_its_weight():
    images, labels = torch.ones(2, 3, 4, 4), torch.tensor([0, 1])
    mix = mixup(images, labels, 3 * images, labels.flip(0), torch.tensor([1.0, 0.25]))
    torch.testing.assert_close(mix.images[:, 0, 0, 0], torch.tensor([1.0, 2.5]))
    assert mix.partners.tolist() == [1, 0]


def test_cutmix_weighs_by_the_pixels_that_are_left():
    rng = generator("boxes")
    weights, centres = torch.from_numpy(rng.random(64)), torch.from_numpy(rng.random((64, 2)))
    labels = torch.zeros(64, dtype=torch.int64)
    mix = cutmix(torch.ones(64, 3, 9, 12), labels, torch.zeros(64, 3, 9, 12), labels, weights, centres)
    torch.testing.assert_close(mix.images.double().mean(dim=(1, 2, 3)), mix.weights)
    assert mix.weights.min() < 0.5 < 0.9 < mix.weights.max()


@pytest.mark.parametrize(
    ("weight", "centre", "rows", "columns"),
    [
        (0.75, (0.5, 0.5), range(8, 24), range(8, 24)),
        (0.75, (0.0, 0.99), range(23, 32), range(8)),
        (0.0, (0.5, 0.5), range(32), range(32)),
        (1.0, (0.5, 0.5), range(0), range(0)),
    ],
)
def test_cutmix_box(weight, centre, rows, columns):
    labels = torch.tensor([0])
    old, new = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    mix = cutmix(old, labels, new, labels, torch.tensor([weight]), torch.tensor([centre]))
    expected = torch.zeros(32, 32)
    for row in rows:
        expected[row, list(columns)] = 1
    assert torch.equal(mix.images[0, 0], expected)


def test_draws_become_a_permutation_and_one_number_for_all():
    order = torch.tensor([0.3, 0.1, 0.9])
    assert shuffled(order).tolist() == [1, 0, 2]
    assert batch_wide(order).tolist() == pytest.approx([0.3] * 3)


def test_partners_are_drawn_by_their_probability():
    uniform = torch.tensor([0.1, 0.6, 0.8, 0.9999999])
    assert drawn(torch.tensor([0.5, 0.25, 0.15, 0.1]), uniform).tolist() == [0, 1, 2, 3]


# -- methods --------------------------------------------------------------------------------------
def test_a_whole_batch_is_weighed_as_its_images_are():
    mixer = build("mixup")
    batch = batch_for(mixer)
    mix = mixer.mix(batch)
    assert 0 < mix.weights[0] < 1
    per_image = mixed_loss(partial(F.cross_entropy, reduction="none"), mixer(mix.images), mix)
    torch.testing.assert_close(mixer.loss(batch), per_image)


@pytest.mark.parametrize("weight", [0.2, 0.7])
def test_remix_gives_whole_labels_to_rare_classes(weight):
    remix, plain = build("remix"), build("mixup")
    batch = batch_for(remix, mix_weight=weight)
    mix = plain.mix(batch)
    mix = Mix(mix.images, mix.labels, mix.partners, remix_weights(mix, remix.class_counts, 3.0, 0.5))
    assert len(mix.weights.unique()) == 2
    expected = mixed_loss(partial(F.cross_entropy, reduction="none"), remix(mix.images), mix)
    torch.testing.assert_close(remix.loss(batch), expected)


def test_margins_are_taken_under_either_label():
    method = build("remix_ldam_drw", tau=0.0)
    batch = batch_for(method)
    mix = method.mix(batch)
    cosines, ones = method.head(method.backbone(mix.images)), torch.ones(4)
    own, partner = (ldam_loss(cosines, y, method.margins, 30.0, ones) for y in (mix.labels, mix.partners))
    weight = mix.weights[0]
    torch.testing.assert_close(method.loss(batch), weight * own + (1 - weight) * partner)


def test_unimix_favours_rare_partners():
    method = build("unimix", partner_tau=-50.0)
    batch = batch_for(method)
    rare = torch.full_like(batch.labels, 1)
    weights = unimix_weights(batch.labels, rare, method.class_counts, batch.draws["mix_shift"])
    mix = mixup(batch.images, batch.labels, batch.images[rare], rare, weights)
    adjusted = method(mix.images) + method.log_prior
    expected = mixed_loss(partial(F.cross_entropy, reduction="none"), adjusted, mix)
    torch.testing.assert_close(method.loss(batch), expected)


def test_cmo_pastes_the_second_batch():
    cmo = build("cmo_ce")
    cmo.before_epoch(Clock(100, 200, 0, 1))
    batch = batch_for(cmo, mix_weight=0.5, mix_switch=0.49)
    mix = cmo.mix(batch)
    torch.testing.assert_close(mix.images.abs(), batch.images)
    assert torch.equal(mix.partners, batch.extra.labels)
    torch.testing.assert_close((mix.images > 0).float().mean(dim=(1, 2, 3)), mix.weights)
    assert mix.weights[0] < 1


@pytest.mark.parametrize(
    ("epoch", "switch", "pastes"),
    [(3, 0.1, False), (4, 0.1, True), (196, 0.1, True), (197, 0.1, False), (100, 0.5, False)],
)
def test_cmo_rests_at_both_ends_and_in_half_of_the_batches(epoch, switch, pastes):
    cmo = build("cmo_ce")
    cmo.before_epoch(Clock(epoch, 200, 0, 1))
    batch = batch_for(cmo, mix_weight=0.5, mix_switch=switch)
    assert bool((cmo.mix(batch).weights < 1).all()) == pastes
    if not pastes:
        plain = F.cross_entropy(cmo(batch.images), batch.labels)
        torch.testing.assert_close(cmo.loss(batch), plain)
