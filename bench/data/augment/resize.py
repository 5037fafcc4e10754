"""Pillow's antialiased bilinear resize, a box of its own for each image, bit for bit.

Pillow weighs pixels by a triangle with integer weights of 22 bits, and rounds to uint8 after the rows and
again after the columns. In float64 such sums are exact, so that no order of summation changes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 22


def resize(images: Tensor, box: Tensor, seen: Tensor, size: int) -> Tensor:
    """Resize `box` (B, 4) of each image (B, 3, H, W) to `size` squared.

    Boxes are x0, y0, x1, y1 in pixels; of the image, only what lies in `seen` (B, 4) is used.
    """
    box = box.float()  # as Pillow takes them
    across = _weights(box[:, 0], box[:, 2], seen[:, 0], seen[:, 2], images.shape[3], size)
    down = _weights(box[:, 1], box[:, 3], seen[:, 1], seen[:, 3], images.shape[2], size)
    rows = _round(images.double() @ across.transpose(1, 2)[:, None])
    return _round(down[:, None] @ rows).to(torch.uint8)


def _weights(start: Tensor, stop: Tensor, low: Tensor, high: Tensor, inside: int, outside: int) -> Tensor:
    """Return what each of `inside` pixels adds to each of `outside` pixels: (B, outside, inside)."""
    start, stop, low, high = (t[:, None, None] for t in (start, stop, low, high))
    scale = (stop - start).double() / outside
    reach = scale.clamp(min=1.0)
    to = torch.arange(outside, dtype=torch.float64, device=start.device)[:, None]
    centre = start.double() + (to + 0.5) * scale
    place = torch.arange(inside, dtype=torch.float64, device=start.device)
    triangle = (1 - ((place - centre + 0.5) / reach).abs()).clamp(min=0.0)
    triangle = triangle * ((place >= low) & (place < high))
    share = triangle / triangle.sum(2, keepdim=True)
    return (share * 2**BITS + 0.5).floor()


def _round(weighed: Tensor) -> Tensor:
    return ((weighed + 2 ** (BITS - 1)) / 2**BITS).floor().clamp(0, 255)
