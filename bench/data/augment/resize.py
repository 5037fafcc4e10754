"""Pillow's antialiased bilinear resize, a box of its own for each image, bit for bit.

Pillow weighs pixels by a triangle with integer weights of 22 bits, and rounds to uint8 after the rows and
again after the columns. In float64 such sums are exact, so that no order of summation changes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.augment.exact import divide, to_bytes

ONE = 2**22


def resize(images: Tensor, box: Tensor, seen: Tensor, size: int) -> Tensor:
    """Resize `box` (B, 4) of each image (B, 3, H, W) to `size` squared.

    Boxes are x0, y0, x1, y1 in pixels; of the image, only what lies in `seen` (B, 4) is used.
    """
    box = box.float()  # as Pillow takes them
    across = _weights(box[:, 0], box[:, 2], seen[:, 0], seen[:, 2], images.shape[3], size)
    down = _weights(box[:, 1], box[:, 3], seen[:, 1], seen[:, 3], images.shape[2], size)
    return _rows_resized(_rows_resized(images, across), down)


def _rows_resized(images: Tensor, weights: Tensor) -> Tensor:
    """Resize the rows of (B, 3, H, W), and exchange rows and columns."""
    total = images.flatten(1, 2).double() @ weights.transpose(1, 2)
    level = to_bytes(total.add_(ONE // 2).div_(ONE))
    return level.unflatten(1, images.shape[1:3]).transpose(2, 3).contiguous()


def _weights(start: Tensor, stop: Tensor, low: Tensor, high: Tensor, inside: int, outside: int) -> Tensor:
    """Return what each of `inside` pixels adds to each of `outside` pixels: (B, outside, inside)."""
    start, stop, low, high = (t[:, None, None] for t in (start, stop, low, high))
    scale = divide((stop - start).double(), outside)
    reach = scale.clamp(min=1.0)
    to = torch.arange(outside, dtype=torch.float64, device=start.device)[:, None]
    centre = start.double() + (to + 0.5) * scale
    place = torch.arange(inside, dtype=torch.float64, device=start.device)
    triangle = (place - centre).add_(0.5).div_(reach).abs_().neg_().add_(1).clamp_(min=0)
    triangle *= (place >= low) & (place < high)
    return triangle.div_(triangle.sum(2, keepdim=True)).mul_(ONE).add_(0.5).floor_()
