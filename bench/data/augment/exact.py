"""Arithmetic that gives the same bits on CPU and GPU, and no slower than it must be."""

from __future__ import annotations

import torch
from torch import Tensor


def to_bytes(levels: Tensor) -> Tensor:
    """Truncate levels from 0 to below 256 to uint8; through int32, as torch vectorises no direct way."""
    return levels.to(torch.int32).to(torch.uint8)


def divide(numbers: Tensor, by: int) -> Tensor:
    """Divide, rounding once: for `numbers / by` torch takes the reciprocal of `by` on a GPU."""
    return numbers / torch.full((), by, dtype=numbers.dtype, device=numbers.device)
