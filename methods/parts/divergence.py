"""Divergences whose teacher learns too."""

from __future__ import annotations

import torch
from torch import Tensor


def above_zero(probabilities: Tensor) -> Tensor:
    """Raise what underflowed to 0 to the smallest number there is, as a constant; all else is as it was.

    The gradient of p log p is log p + 1, and not finite at 0, where p can no longer change. Of KL from
    log-probabilities this differs by rounding alone, and below the smallest number by nothing.
    """
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny)
