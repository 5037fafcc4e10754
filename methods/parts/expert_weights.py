"""Weights of experts, learnt on a test set without its labels as in SADE.

A method that adapts has seen the test images, and is never ranked with one that has not.
"""

from __future__ import annotations

import numpy as np

#: Learning ends when a weight rounds to less, as in the authors' code.
LEAST = 0.05


def expert_weights(
    views: np.ndarray,
    *,
    rate: float = 0.1,
    momentum: float = 0.9,
    decay: float = 5e-4,
    epochs: int = 5,
    batch: int = 128,
) -> np.ndarray:
    """Learn weights of experts that make the predictions for two views of an image agree (SADE, section 4.3).

    Nesterov's ascent on the mean cosine between the softmaxes of the weighted logits of both views. The
    weights are a softmax of parameters that start equal. quirk: as in the authors' code, weight decay applies
    to these parameters, and learning ends after an epoch in which a weight rounds to less than 0.05.

    Args:
        views: logits (2, N, K, C) of K experts on two augmented views of N test images.
        rate: 0.1 on CIFAR-100, 0.025 on ImageNet-LT, 0.2 on iNaturalist, 0.01 on Places-LT.
        momentum, decay: of the ascent; the decay is 2e-4 on iNaturalist, 4e-4 on Places-LT.
        epochs: passes over the images, in order.

    Returns:
        (K,), summing to one.
    """
    images, experts = views.shape[1:3]
    raw, speed = np.full(experts, 1 / experts), np.zeros(experts)
    for _ in range(epochs):
        for start in range(0, images, batch):
            gradient = _gradient(raw, views[:, start : start + batch].astype(np.float64))
            step = -gradient + decay * raw
            speed = momentum * speed + step
            raw = raw - rate * (step + momentum * speed)
        if (np.round(_softmax(raw), 2) < LEAST).any():
            break
    return _softmax(raw)


def _gradient(raw: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Return d mean_i cos(p_i, q_i) / d raw, (K,), for views (2, B, K, C)."""
    mix = _softmax(raw)
    p, q = (_softmax(np.einsum("k,bkc->bc", mix, view)) for view in views)
    size_p, size_q = (np.linalg.norm(x, axis=1, keepdims=True).clip(1e-6) for x in (p, q))
    cosine = (p * q).sum(axis=1, keepdims=True) / (size_p * size_q)
    of_p, of_q = (
        other / (size_p * size_q) - cosine * own / size**2
        for own, other, size in ((p, q, size_p), (q, p, size_q))
    )
    total = np.zeros_like(raw)
    for x, of_x, view in ((p, of_p, views[0]), (q, of_q, views[1])):
        of_logits = x * (of_x - (x * of_x).sum(axis=1, keepdims=True))
        total += np.einsum("bc,bkc->k", of_logits, view) / len(x)
    return mix * (total - (mix * total).sum())


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
