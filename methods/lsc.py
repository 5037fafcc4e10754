"""LSC: a trained ensemble corrected for the class shares of its test set (2024).

A small network, learnt on training images alone, estimates the shares from the mean logits of the test
images, without their labels. So it needs a whole test set at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import MakeBackbone, Method, Unlabelled
from bench.randomness import generator
from bench.registry import register
from methods.ncl import NCL

#: Head and medium classes end at these shares of the classes, ordered by count.
HEAD, MEDIUM = 0.36, 0.7

#: The ratio of head to tail from which a test set counts as forward, and the reverse as backward.
SURE = 1.5


@register("lsc", golden=True)
class LSC(Method):
    """NCL's networks, with logits corrected by the estimated class shares of a test set.

    For single images it is NCL: on a balanced test set the authors correct nothing.

    Args:
        networks: number of NCL's networks.
        recall: the number of largest logits kept is the smallest with more than this recall of the label.
        largest_factor: the estimator learns from tails of imbalance factors up to this, in steps of 0.1,
            forward and reversed.
        temper: divisor of the correction.
        epochs: of the estimator, over all these tails in batches of 1024.
        lr: of its Adam optimiser.
    """

    needs_parent = True
    usual_parent = "ncl"
    trains = False
    adapts = True
    scores = "balanced"
    parent: NCL
    order: Tensor
    kept: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        networks: int = 3,
        recall: float = 0.8,
        largest_factor: float = 100.0,
        temper: float = 3.0,
        epochs: int = 100,
        lr: float = 1e-3,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.experts, self.recall, self.largest_factor = networks, recall, largest_factor
        self.temper, self.epochs, self.lr = temper, epochs, lr
        width, classes = networks * self.num_classes, self.num_classes
        self.estimator = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))
        self.register_buffer("order", self.class_counts.argsort(descending=True, stable=True))
        self.register_buffer("kept", torch.tensor(1))

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, NCL) or parent.experts != self.experts:
            raise BenchError(
                f"lsc starts from an ncl of as many networks ({self.experts}), not from this "
                f"{type(parent).__name__}"
            )
        self.parent = parent

    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.eval()
        with torch.no_grad():
            read = [(self.member_logits(images).float().cpu(), y.cpu()) for images, y in training_set]
        logits, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        kept = max(kept_for(network, labels, self.recall) for network in logits.unbind(dim=1))
        self.kept.fill_(kept)
        sizes = shifted_sizes(int(self.class_counts.max()), self.num_classes, self.largest_factor)
        sizes = sizes[:, self.order.cpu().argsort()]
        means, shares = shifted_sets(largest(logits, kept).flatten(1), labels, sizes)
        with torch.enable_grad():
            fit(self.estimator, means.to(self.kept.device), shares.to(self.kept.device), self.epochs, self.lr)

    def member_logits(self, images: Tensor) -> Tensor:
        return self.parent.logits(images).transpose(0, 1)

    @torch.no_grad()
    def adapt(self, test: Unlabelled) -> Tensor:
        logits = test.logits
        prior = label_shift(self.estimator, logits, test.weights, self.order, int(self.kept))
        if prior is None:
            return logits.mean(dim=1)
        return (logits + prior.log() / self.temper).mean(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.parent(images)


def largest(logits: Tensor, count: int) -> Tensor:
    """Keep each row's `count` largest logits (..., C), and set the others to 0."""
    values, at = logits.topk(count, dim=-1)
    return torch.zeros_like(logits).scatter(-1, at, values)


def kept_for(logits: Tensor, labels: Tensor, recall: float) -> int:
    """Return the smallest k with the label among the k largest logits (N, C) for a share above `recall`."""
    rank = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    share = rank.bincount(minlength=logits.shape[1]).cumsum(0) / len(labels)
    return int((share <= recall).sum()) + 1


def shifted_sizes(largest_class: int, classes: int, largest_factor: float) -> Tensor:
    """Return class sizes (S, C) of tails with factors 1, 1.1, ... below the largest, each with its reverse.

    quirk: the first of each pair rises, because the authors' factor is inverted.
    """
    factors = torch.arange(10, round(10 * largest_factor), dtype=torch.float64) / 10
    position = torch.arange(classes - 1, -1, -1, dtype=torch.float64) / max(classes - 1, 1)
    rising = (largest_class * (1 / factors[:, None]) ** position).long()
    return torch.stack([rising, rising.flip(1)], dim=1).flatten(0, 1)


def shifted_sets(rows: Tensor, labels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Draw sets of rows (N, D) with given class sizes (S, C), and return their means and class shares.

    Rows are drawn with replacement; none are drawn of a class without rows.
    """
    rng, classes = generator("label shift", 0), sizes.shape[1]
    members = [np.flatnonzero(labels.numpy() == c) for c in range(classes)]
    present = torch.tensor([len(own) > 0 for own in members])
    sizes = sizes * present
    means = []
    for counts in sizes.tolist():
        drawn = [own[rng.integers(0, len(own), n)] for own, n in zip(members, counts, strict=True) if n]
        means.append(rows[np.concatenate(drawn)].mean(dim=0))
    return torch.stack(means), sizes / sizes.sum(dim=1, keepdim=True)


def fit(estimator: nn.Module, means: Tensor, shares: Tensor, epochs: int, lr: float) -> None:
    """Train the estimator to give class shares (S, C) for means (S, D), by KL(shares || softmax)."""
    optimizer = torch.optim.Adam(estimator.parameters(), lr=lr)
    for _ in range(epochs):
        for rows, wanted in zip(means.split(1024), shares.float().split(1024), strict=True):
            optimizer.zero_grad()
            F.kl_div(estimator(rows).log_softmax(dim=1), wanted, reduction="batchmean").backward()
            optimizer.step()
    estimator.zero_grad()


def label_shift(
    estimator: nn.Module, logits: Tensor, weights: Tensor, order: Tensor, kept: int
) -> Tensor | None:
    """Return the class shares (C,) of a test set with logits (N, K, C), or None if its tail is not clear.

    The estimator gets mean logits with ten different numbers of logits kept, and with `kept`. By the mean
    estimate the set is forward, backward or neither. The result is the estimate for those means that have
    most of the head, or of the tail.

    Args:
        weights: (N,), the images' shares of the test set.
        order: the classes, the most frequent first.
    """
    classes = len(order)
    counts = [*dict.fromkeys(max(1, round(classes * tenth / 10)) for tenth in range(1, 11)), kept]
    share = (weights / weights.sum()).to(logits)
    means = torch.stack([torch.einsum("n,nkc->kc", share, largest(logits, count)) for count in counts])
    estimate = estimator(means.flatten(1)).softmax(dim=1).mean(dim=0)[order]
    head, tail = round(HEAD * classes), round(MEDIUM * classes)
    many, medium, few = estimate[:head].mean(), estimate[head:tail].mean(), estimate[tail:].mean()
    held = means.sum(dim=1)[:, order]
    if many > SURE * few and many > medium:
        chosen = (held[:, :head].sum(dim=1) / held.sum(dim=1)).topk(2).indices
    elif few > SURE * many and few > medium:
        chosen = (held[:, tail:].sum(dim=1) / held.sum(dim=1)).topk(1).indices
    else:
        return None
    return estimator(means[chosen].mean(dim=0).flatten()).softmax(dim=0)
