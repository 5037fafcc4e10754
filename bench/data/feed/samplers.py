"""Samplers: the order in which an epoch visits the training images, by name in a recipe or a method.

Every sampler returns n positions for n images, so the length of an epoch does not change. All but `shuffle`
and `class_aware` draw with replacement: a class by its probability, then one of its images uniformly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.errors import BenchError, did_you_mean

#: Class probabilities (C,) from class counts (C,), none of them 0, the epoch from 0, and the epochs.
Probabilities = Callable[[np.ndarray, int, int], np.ndarray]
#: Positions (n,) int64 from labels (n,), a generator, the epoch from 0, and the epochs.
Sampler = Callable[[np.ndarray, np.random.Generator, int, int], np.ndarray]


def instance(counts: np.ndarray, epoch: int = 0, epochs: int = 1) -> np.ndarray:
    """Draw each image equally often: p_c = n_c / N."""
    return _normalised(counts)


def class_balanced(counts: np.ndarray, epoch: int = 0, epochs: int = 1) -> np.ndarray:
    """Draw each class equally often: p_c = 1 / C."""
    return _normalised(np.ones_like(counts))


def sqrt(counts: np.ndarray, epoch: int = 0, epochs: int = 1) -> np.ndarray:
    """Flatten the tail: p_c ~ sqrt(n_c)."""
    return _normalised(np.sqrt(counts))


def power(exponent: float) -> Probabilities:
    """Return the rule p_c ~ n_c^exponent; 0.8 weights each image by n^-0.2, as in GLMC's second batch."""

    def probabilities(counts: np.ndarray, epoch: int = 0, epochs: int = 1) -> np.ndarray:
        return _normalised(counts.astype(float) ** exponent)

    return probabilities


def progressive(counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
    """Go from instance to class-balanced: p_c = (1-t) n_c / N + t / C, t from 0 to 1 over the epochs.

    Kang et al., ICLR 2020; t = epoch / (epochs - 1), so the last epoch is fully balanced.
    """
    t = epoch / max(epochs - 1, 1)
    return (1 - t) * instance(counts) + t * class_balanced(counts)


def effective_number(counts: np.ndarray, epoch: int = 0, epochs: int = 1) -> np.ndarray:
    """Weight each image by 1 / E_n: p_c ~ n_c (1-b) / (1-b^n_c) with b = 0.9999.

    quirk: the weight is one image's, as in LDAM-DRW's resampling rule, so p_c keeps the factor n_c and is
    close to uniform; it is not Cui et al.'s class weight.
    """
    beta = 0.9999
    return _normalised(counts * (1 - beta) / (1 - beta**counts))


def reverse(counts: np.ndarray, epoch: int = 0, epochs: int = 1) -> np.ndarray:
    """Reverse the tail: p_c ~ n_max / n_c (the reversed sampler of BBN, Zhou et al., CVPR 2020)."""
    return _normalised(counts.max() / counts)


def shuffle(labels: np.ndarray, rng: np.random.Generator, epoch: int, epochs: int) -> np.ndarray:
    """Visit every image once."""
    return rng.permutation(len(labels))


def class_aware(
    labels: np.ndarray, rng: np.random.Generator, epoch: int, epochs: int, together: int = 4
) -> np.ndarray:
    """Cycle through the classes, `together` images of one in a row, and through the images of each class.

    Each cycle is shuffled again (ClassAwareSampler of classifier-balancing and MiSLAS with `num_samples_cls`
    4). A class of fewer images repeats them.
    """
    present = np.unique(labels)
    turns = -(-len(labels) // together)
    classes = _rounds(present, turns, rng)
    order = np.empty((turns, together), np.int64)
    for label in present:
        mine = classes == label
        images = _rounds(np.flatnonzero(labels == label), int(mine.sum()) * together, rng)
        order[mine] = images.reshape(-1, together)
    return order.ravel()[: len(labels)]


def _rounds(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` values: the values shuffled, again and again."""
    rounds = max(1, -(-count // len(values)))
    return np.concatenate([rng.permutation(values) for _ in range(rounds)])[:count]


def drawn(probabilities: Probabilities) -> Sampler:
    """Return a sampler that draws classes by their probabilities, and images of a class uniformly."""

    def sampler(labels: np.ndarray, rng: np.random.Generator, epoch: int, epochs: int) -> np.ndarray:
        counts = np.bincount(labels)
        present = np.flatnonzero(counts)
        shares = probabilities(counts[present], epoch, epochs)
        classes = present[rng.choice(len(present), size=len(labels), p=shares)]
        by_class = np.argsort(labels, kind="stable")
        first = np.cumsum(counts) - counts
        return by_class[first[classes] + rng.integers(counts[classes])]

    return sampler


SAMPLERS: dict[str, Sampler] = {
    "shuffle": shuffle,
    "class_aware": class_aware,
    **{rule.__name__: drawn(rule) for rule in (instance, class_balanced, sqrt, progressive)},
    "power_0.8": drawn(power(0.8)),
    **{rule.__name__: drawn(rule) for rule in (effective_number, reverse)},
}


def order(
    name: str, labels: np.ndarray, rng: np.random.Generator, epoch: int = 0, epochs: int = 1
) -> np.ndarray:
    """Return the positions (n,) int64 that an epoch visits, in order, of n images with `labels`."""
    if name not in SAMPLERS:
        raise BenchError(f"unknown sampler {name!r}{did_you_mean(name, SAMPLERS)}")
    return SAMPLERS[name](labels, rng, epoch, epochs)


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()
