"""Weights of experts learnt from unlabelled test images."""

from __future__ import annotations

import numpy as np
import pytest
from golden_values import golden

from bench.leaderboard.adapt import expert_weights


def test_the_authors_weights():
    g, told = golden("sade_test_weights_C10")
    views = g["view_logits"].numpy()
    batches, size = views.shape[1:3]
    views = views.reshape(2, batches * size, *views.shape[3:])
    options = {"rate": told["lr"], "momentum": told["momentum"], "decay": told["weight_decay"], "batch": size}
    expected = g["weights"].numpy()
    for epochs in (1, told["epochs"]):
        found = expert_weights(views, epochs=epochs, **options)
        np.testing.assert_allclose(found, expected[epochs * batches - 1], rtol=1e-5)


@pytest.fixture
def views() -> np.ndarray:
    """Two views of 60 images of six classes: the first expert sees the first three, the second the others."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 6
    logits = rng.normal(0, 1.5, (2, 60, 2, 6))
    for expert, own in enumerate((labels < 3, labels >= 3)):
        logits[:, own, expert, labels[own]] += 6
    return logits


def test_the_expert_of_the_frequent_classes_gains(views):
    labels = np.arange(60) % 6
    forward, backward = (np.where(labels < 3, *pair) for pair in ((10.0, 1.0), (1.0, 10.0)))
    assert expert_weights(views, forward)[0] > 0.55
    assert expert_weights(views, backward)[1] > 0.55
    assert expert_weights(views).sum() == pytest.approx(1)


def test_shares_count_as_images_do(views):
    twice = np.concatenate([views, views[:, :20]], axis=1)
    shares = np.where(np.arange(60) < 20, 2.0, 1.0)
    options = {"batch": 1000, "epochs": 3}
    np.testing.assert_allclose(expert_weights(twice, **options), expert_weights(views, shares, **options))


def test_an_expert_that_is_not_wanted_ends_the_learning():
    rng = np.random.default_rng(1)
    views = np.zeros((2, 40, 2, 4))
    views[:, :, 0, 0] = 6
    views[:, :, 1] = rng.normal(0, 8, (2, 40, 4))
    short = [expert_weights(views, rate=20.0, batch=1000, epochs=epochs) for epochs in (1, 2, 50)]
    assert min(short[2]) < 0.05
    ended = next(
        n for n in range(1, 51) if min(expert_weights(views, rate=20.0, batch=1000, epochs=n)) < 0.045
    )
    np.testing.assert_array_equal(short[2], expert_weights(views, rate=20.0, batch=1000, epochs=ended))
