"""Samplers draw classes as their papers say, and images of a class alike."""

from __future__ import annotations

import numpy as np
import pytest
from golden_values import golden

from bench.data.feed import samplers
from bench.errors import BenchError
from bench.randomness import generator

GOLDEN = {key: value.numpy() for key, value in golden("classic_sampler_probs_c10")[0].items()}
COUNTS = GOLDEN["in_cls_num"]
#: Sampler -> its golden name (at the epoch given, of 90).
RULES = {
    ("instance", 0): "instance",
    ("class_balanced", 0): "balanced",
    ("sqrt", 0): "sqrt",
    ("reverse", 0): "bbn_reverse",
    ("effective_number", 0): "effective_number_ldam",
    ("progressive", 0): "progressive_epoch0",
    ("progressive", 30): "progressive_epoch30",
    ("progressive", 60): "progressive_epoch60",
    ("progressive", 89): "progressive_epoch89",
}


@pytest.mark.parametrize(("rule", "golden_name"), RULES.items())
def test_class_probabilities_are_the_authors(rule, golden_name):
    name, epoch = rule
    shares = getattr(samplers, name)(COUNTS, epoch, 90)
    np.testing.assert_allclose(shares, GOLDEN[f"out_class_prob_{golden_name}"], rtol=1e-12)


@pytest.mark.parametrize(("rule", "golden_name"), RULES.items())
def test_classes_are_drawn_with_those_probabilities(rule, golden_name):
    name, epoch = rule
    labels = generator("labels").permutation(np.repeat(np.arange(10), COUNTS))
    rngs = [generator("draw", name, epoch, i) for i in range(20)]
    drawn = np.concatenate([labels[samplers.order(name, labels, rng, epoch, 90)] for rng in rngs])
    shares = np.bincount(drawn, minlength=10) / len(drawn)
    expected = GOLDEN[f"out_class_prob_{golden_name}"]
    deviation = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (np.abs(shares - expected) < 4 * deviation).all()


def test_every_sampler_has_its_probabilities_tested():
    assert set(samplers.SAMPLERS) == {"shuffle", "class_aware", "power_0.8", *(name for name, _ in RULES)}


def test_glmcs_second_batch_weighs_each_image_by_its_class_size_to_minus_a_fifth():
    weights = np.repeat(COUNTS.astype(float) ** -0.2, COUNTS)
    of_class = np.add.reduceat(weights, np.cumsum(COUNTS) - COUNTS)
    np.testing.assert_allclose(samplers.power(0.8)(COUNTS), of_class / weights.sum(), rtol=1e-12)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_an_epoch_keeps_its_length_and_is_a_function_of_its_generator(name):
    labels = generator("labels").permutation(np.repeat([0, 1, 3], [30, 12, 1]))  # no image of class 2
    first, again, other = (samplers.order(name, labels, generator("o", s), 1, 5) for s in (0, 0, 1))
    assert first.shape == labels.shape
    assert first.dtype == np.int64
    assert 0 <= first.min() <= first.max() < len(labels)
    assert first.tolist() == again.tolist() != other.tolist()


def test_shuffle_visits_every_image_once():
    positions = samplers.order("shuffle", np.zeros(50, np.int64), generator("s"))
    assert sorted(positions) == list(range(50))


def test_images_of_a_class_are_drawn_alike():
    labels = np.array([0, 1, 0, 1, 0, 0] * 2000)
    positions = samplers.order("class_balanced", labels, generator("alike"))
    residues = np.bincount(positions % 6, minlength=6) / len(labels)
    np.testing.assert_allclose(residues, [1 / 8, 1 / 4, 1 / 8, 1 / 4, 1 / 8, 1 / 8], atol=0.015)


def test_a_run_of_one_epoch_can_be_progressive():
    np.testing.assert_allclose(samplers.progressive(COUNTS, 0, 1), samplers.instance(COUNTS))


def test_an_unknown_sampler_is_answered_with_the_nearest():
    with pytest.raises(BenchError, match="'class_balancd'; did you mean 'class_balanced'"):
        samplers.order("class_balancd", np.zeros(3, np.int64), generator("x"))
