"""Drawing a long tail from a balanced set: class counts, positions, fingerprint and shot groups.

NumPy on labels. The rules and the seed are those of LDAM-DRW (Cao et al., NeurIPS 2019), which the field
shares: from a data set in its original order they draw exactly the papers' images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from bench.cell import DataSet, ShotRule
from bench.errors import BenchError

#: The power of the Pareto distribution from which ImageNet-LT was drawn.
PARETO_POWER = 6


def exponential(n_max: int, imbalance_factor: float, num_classes: int) -> np.ndarray:
    """Return the counts (C,) that fall from `n_max` to `n_max / imbalance_factor` in label order.

    n_c = int(n_max * (1/IF)^(c / (C-1))), truncated, in double precision as in the authors' code.
    """
    factor = 1 / imbalance_factor
    shares = [factor ** (c / (num_classes - 1)) for c in range(num_classes)]
    return np.array([int(n_max * share) for share in shares], dtype=np.int64)


def step(n_max: int, imbalance_factor: float, num_classes: int) -> np.ndarray:
    """Return `n_max` for the first half of the classes and `int(n_max / imbalance_factor)` after it."""
    counts = np.full(num_classes, n_max, dtype=np.int64)
    counts[num_classes // 2 :] = int(n_max * (1 / imbalance_factor))
    return counts


def pareto(n_max: int, imbalance_factor: float, num_classes: int) -> np.ndarray:
    """Return the counts (C,) of a Pareto tail with power 6, from `n_max` to `n_max / imbalance_factor`.

    The quantiles x_c = ((c + 1/2) / C)^(-1/6) of the Pareto distribution, scaled linearly and truncated. The
    power is ImageNet-LT's (Liu et al., CVPR 2019), which was drawn at random: with its 1,000 classes of 1,280
    to 5 images the rule gives 349, 488 and 163 many-, medium- and few-shot classes; it has 385, 479 and 136.
    """
    quantiles = ((np.arange(num_classes) + 0.5) / num_classes) ** (-1 / PARETO_POWER)
    shares = (quantiles - quantiles[-1]) / (quantiles[0] - quantiles[-1])
    n_min = n_max * (1 / imbalance_factor)
    return np.array([int(n_min + (n_max - n_min) * share) for share in shares], dtype=np.int64)


#: The rules by which a tail is drawn.
PROFILES = {"exponential": exponential, "step": step, "pareto": pareto}


def class_counts(
    dataset: DataSet, imbalance_factor: float, available: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """Return the training images (C,) of each class in the tail, of `available` (C,) less the held-out ones.

    Raises:
        BenchError: a class would be empty or has too few images, or the profile is `natural` and not all
            images are asked for.
    """
    held = held_counts(dataset.held_out, available)
    available = available - held
    if dataset.profile == "natural":
        if imbalance_factor != 1 or dataset.n_max is not None:
            raise BenchError(
                f"{dataset.name}: profile 'natural' keeps every image; leave out n_max and imbalance_factor "
                "(or let it be 1)"
            )
        if (few := np.flatnonzero(available < 1)).size:
            c = int(few[0])
            raise BenchError(
                f"{dataset.name}: held_out {dataset.held_out} leaves class {c} {class_names[c]!r} without an "
                "image; lower held_out"
            )
        return available.astype(np.int64)
    n_max = int(available.max()) if dataset.n_max is None else dataset.n_max
    counts = PROFILES[dataset.profile](n_max, imbalance_factor, len(available))
    if dataset.class_order:
        order = np.random.RandomState(dataset.class_order).permutation(len(counts))
        counts[order] = counts.copy()
    for c, (kept, most) in enumerate(zip(counts, available, strict=True)):
        if kept < 1:
            raise BenchError(
                f"{dataset.name}: imbalance factor {imbalance_factor:g} leaves class {c} "
                f"{class_names[c]!r} without an image (n_max {n_max}); lower the imbalance factor"
            )
        if kept > most:
            besides = f" besides the {held[c]} held out" if held[c] else ""
            raise BenchError(
                f"{dataset.name}: class {c} {class_names[c]!r} has {most} images{besides}, but n_max {n_max} "
                f"and imbalance factor {imbalance_factor:g} need {kept}; lower n_max, "
                "or keep all images with profile 'natural', without imbalance_factor"
            )
    return counts


def select(labels: np.ndarray, counts: np.ndarray, split_seed: int = 0) -> np.ndarray:
    """Draw `counts[c]` images of each class and return their positions (n,) int64, class after class.

    One generator, `RandomState(split_seed)`, shuffles the positions of each class in turn; the first are
    kept. The seed is part of the data set, not of a run: 0 gives the papers' subset.
    """
    classes = _shuffled(labels, len(counts), split_seed)
    return np.concatenate([positions[:kept] for positions, kept in zip(classes, counts, strict=True)])


def held_counts(held_out: int | float | None, available: np.ndarray) -> np.ndarray:
    """Return the number (C,) of training images of each class that are held out.

    A share is rounded down, but to one image at least; a class with a single image keeps it.
    """
    if not isinstance(held_out, float):
        return np.full_like(available, held_out or 0)
    share = np.floor(available * held_out + 1e-9).astype(available.dtype)
    return np.minimum(np.maximum(share, 1), np.maximum(available - 1, 0))


def hold_out(dataset: DataSet, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the positions of the held-out images: the last of each class as `select` shuffles them.

    Raises:
        BenchError: there would be none.
    """
    held = held_counts(dataset.held_out, np.bincount(labels, minlength=num_classes))
    if not held.any():
        raise BenchError(f"{dataset.name}: held_out {dataset.held_out} holds out no image; raise it")
    classes = _shuffled(labels, num_classes, dataset.split_seed)
    return np.concatenate([p[max(0, len(p) - kept) :] for p, kept in zip(classes, held, strict=True)])


def with_noise(labels: np.ndarray, share: float, num_classes: int, split_seed: int = 0) -> np.ndarray:
    """Replace labels (n,) with probability `share` by another class, drawn uniformly: symmetric noise.

    Relative to their size, rare classes receive the most wrong labels.

    Raises:
        BenchError: a class is left without a label.
    """
    rng = np.random.RandomState([split_seed, 1])
    wrong = rng.random_sample(len(labels)) < share
    others = (labels + rng.randint(1, num_classes, len(labels))) % num_classes
    noisy = np.where(wrong, others, labels)
    if (missing := np.setdiff1d(np.arange(num_classes), noisy)).size:
        raise BenchError(f"label_noise {share:g} leaves class {missing[0]} without a label; lower it")
    return noisy


def _shuffled(labels: np.ndarray, num_classes: int, split_seed: int) -> list[np.ndarray]:
    rng = np.random.RandomState(split_seed)
    classes = [np.flatnonzero(labels == c).astype(np.int64) for c in range(num_classes)]
    for positions in classes:
        rng.shuffle(positions)
    return classes


def fingerprint(positions: np.ndarray, labels: np.ndarray, pixels: np.ndarray) -> str:
    """Hash a split to 16 hexadecimal digits: a changed copy has another fingerprint.

    Args:
        positions: (n,) of the images in their set.
        labels: (n,) their classes.
        pixels: (n, H, W, 3) uint8.
    """
    digest = hashlib.sha256(repr(pixels.shape).encode())
    for array in (positions.astype("<i8"), labels.astype("<i8"), pixels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def shot_groups(counts: np.ndarray, rule: ShotRule) -> dict[str, list[int]]:
    """Sort the classes by their training counts into many, medium and few; a group may be empty."""
    many, few = counts > rule.many_above, counts < rule.few_below
    groups = {"many": many, "medium": ~many & ~few, "few": few}
    return {name: np.flatnonzero(inside).tolist() for name, inside in groups.items()}
