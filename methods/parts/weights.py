"""Class weights, when they apply, and the class prior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Clock


def effective_number_weights(class_counts: Tensor, beta: float) -> Tensor:
    """Return class-balanced weights (C,): (1 - beta) / (1 - beta^n_c), scaled to sum to C.

    Cui et al. 2019, eq. 2; beta = 0 gives ones, beta = 1 the limit 1 / n_c. An absent class counts as one
    image.
    """
    counts = class_counts.clamp(min=1).double()
    weights = (1 - beta) / (1 - beta**counts) if beta < 1 else 1 / counts
    return (weights * len(counts) / weights.sum()).float()


def power_weights(class_counts: Tensor, exponent: float) -> Tensor:
    """Return weights (C,) proportional to n_c^-exponent, scaled to sum to C.

    An absent class counts as one image.
    """
    weights = class_counts.clamp(min=1).double() ** -exponent
    return (weights * len(weights) / weights.sum()).float()


def log_class_prior(class_counts: Tensor) -> Tensor:
    """Return log(n_c / N), (C,) float; an absent class counts as one image, to stay finite."""
    counts = class_counts.clamp(min=1).double()
    return (counts / counts.sum()).log().float()


class DeferredWeights(nn.Module):
    """Class-balanced weights that switch on after a share of the epochs (DRW; LDAM, section 3.3).

    `start` = 0 applies them always (class-balanced loss), 0.8 from epoch 160 of 200 (LDAM-DRW), None never.
    The buffer `now` (C,) is updated in place, so that a captured step sees the change.
    """

    now: Tensor
    balanced: Tensor

    def __init__(self, class_counts: Tensor, start: float | None, beta: float) -> None:
        super().__init__()
        if start is not None and not 0 <= start <= 1:
            raise BenchError(f"reweight_from is {start:g}; it is a share of the epochs, 0.8 for 160 of 200")
        self.start = start
        self.register_buffer("balanced", effective_number_weights(class_counts, beta))
        self.register_buffer("now", torch.ones_like(self.balanced))

    def on(self, clock: Clock) -> bool:
        """Whether the weights apply in the clock's epoch."""
        return self.start is not None and clock.epoch >= round(self.start * clock.epochs)

    def update(self, clock: Clock) -> None:
        """Set the weights of the clock's epoch."""
        self.now.copy_(self.balanced) if self.on(clock) else self.now.fill_(1.0)


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    reduction: str = "weighted_mean",
    smoothing: float = 0.0,
) -> Tensor:
    """Return sum_i w_{y_i} CE_i over sum_i w_{y_i} ("weighted_mean") or over B ("batch").

    `smoothing` is the label smoothing, over all classes including the label's.
    """
    total = F.cross_entropy(logits, labels, class_weights, reduction="sum", label_smoothing=smoothing)
    weights = class_weights[labels].sum() if reduction == "weighted_mean" else len(labels)
    return total / weights
