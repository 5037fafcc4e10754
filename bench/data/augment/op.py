"""Operations, how one changes some images of a batch, and arithmetic with the same bits on CPU and GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

#: Changes uint8 images (B, 3, H, W) by rows of numbers (B, ...); None leaves them unchanged.
How = Callable[..., Tensor] | None


class Op(Protocol):
    """One operation of a policy: it draws its tables for n images, and applies rows of them."""

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw named arrays of `n` rows for square images of `size` pixels a side."""

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Return new uint8 images (B, 3, h, w); the tables have B rows."""


def wants_static(images: Tensor) -> bool:
    """Tell whether shapes must not depend on data: on a GPU that would synchronise and break a capture."""
    return images.device.type != "cpu"


def by_kind(images: Tensor, kind: Tensor, hows: Sequence[How], *rows: Tensor) -> Tensor:
    """Change each image by `hows[kind]`; `kind` is (B,) int64, each of `rows` has B rows.

    On a CPU each kind is computed for its images only. On a GPU each is computed for all images and the
    result is selected, without synchronisation. Both give the same bytes, as images are independent.
    """
    if wants_static(images):
        result = images
        for number, how in enumerate(hows):
            if how is not None:
                chosen = (kind == number)[:, None, None, None]
                result = torch.where(chosen, how(images, *rows), result)
        return result
    result = images.clone()
    sizes = kind.bincount(minlength=len(hows)).tolist()
    for how, group in zip(hows, kind.argsort().split(sizes), strict=True):
        if how is not None and len(group):
            some = (tensor.index_select(0, group) for tensor in (images, *rows))
            result.index_copy_(0, group, how(*some))
    return result


def in_turn(images: Tensor, tables: Mapping[str, Tensor], hows: Sequence[How]) -> Tensor:
    """Apply k operations one after the other, by tables `kind` (B, k) and `numbers` (B, k, 6)."""
    for kind, rows in zip(tables["kind"].unbind(1), tables["numbers"].unbind(1), strict=True):
        images = by_kind(images, kind, hows, rows)
    return images


def change(images: Tensor, chosen: Tensor, how: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Change the `chosen` (B,) images by `how`."""
    return by_kind(images, chosen.long(), (None, how), *rows)


# -- arithmetic that gives the same bits on CPU and GPU ----------------------------------------------
def to_bytes(levels: Tensor) -> Tensor:
    """Truncate levels in [0, 256) to uint8; via int32, as torch does not vectorise the direct conversion."""
    return levels.to(torch.int32).to(torch.uint8)


def divide(numbers: Tensor, by: int) -> Tensor:
    """Divide with one rounding; on a GPU torch computes `numbers / by` with the reciprocal of `by`."""
    return numbers / torch.full((), by, dtype=numbers.dtype, device=numbers.device)
