"""Pillow's affine transforms, a matrix of its own for each image.

A matrix (n, 6) maps a pixel (x, y) of the result to a x + b y + c, d x + e y + f of the image; what falls
outside of it is filled. Matrices are made on the host, so that all devices see the same float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bench.data.augment.exact import to_bytes

Colour = tuple[int, int, int]


def matrices(*entries: ArrayLike) -> np.ndarray:
    """Stack six entries, numbers or arrays (n,), to matrices (n, 6)."""
    return np.stack(np.broadcast_arrays(*entries), axis=-1).astype(np.float64)


def rotation(degrees: np.ndarray, size: int) -> np.ndarray:
    """Rotate counter-clockwise about the centre of square images, as `Image.rotate`."""
    angle = -np.radians(degrees % 360.0)
    cos, sin = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15)
    half = size / 2
    x, y = cos * -half + sin * -half + half, -sin * -half + cos * -half + half
    return matrices(cos, sin, x, -sin, cos, y)


def nearest(images: Tensor, matrix: Tensor, fill: Colour) -> Tensor:
    """Take the nearest pixel, in Pillow's fixed point of 16 bits."""
    a, b, c, d, e, f = (m[:, None, None] for m in matrix.unbind(1))
    rows, columns = _grid(images, torch.int64)
    x = _fix(c + a * 0.5 + b * 0.5) + _fix(b) * rows + _fix(a) * columns >> 16
    y = _fix(f + d * 0.5 + e * 0.5) + _fix(e) * rows + _fix(d) * columns >> 16
    height, width = images.shape[-2:]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return _filled(_take(images, index), y, x, fill)


def smooth(images: Tensor, matrix: Tensor, fill: Colour, across: int, down: int) -> Tensor:
    """Interpolate 1, 2 (linear) or 4 (cubic) pixels in a row and in a column.

    One pixel is right, and cheaper, where the matrix does not move pixels in that direction. Pillow's
    cubic of transforms has a = -1 (its resize has -0.5, torch's grid_sample -0.75), and it truncates.
    """
    a, b, c, d, e, f = (m[:, None, None] for m in matrix.unbind(1))
    rows, columns = (place + 0.5 for place in _grid(images, torch.float64))
    x = a * columns + b * rows + c
    y = d * columns + e * rows + f
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    dx, dy = (x - 0.5 - left)[:, None], (y - 0.5 - top)[:, None]
    height, width = images.shape[-2:]
    lines = [(top + j).clamp(0, height - 1).long() * width for j in _OFFSETS[down]]
    places = [(left + i).clamp(0, width - 1).long() for i in _OFFSETS[across]]
    levels = images.double()
    values = [_BETWEEN[across]([_take(levels, line + at) for at in places], dx) for line in lines]
    value = to_bytes(_BETWEEN[down](values, dy).clamp_(0, 255))
    return _filled(value, y, x, fill)


def _linear(v: list[Tensor], t: Tensor) -> Tensor:
    return v[0] + (v[1] - v[0]) * t


def _cubic(v: list[Tensor], t: Tensor) -> Tensor:
    p2 = -v[0] + v[2]
    p3 = 2 * (v[0] - v[1]) + v[2] - v[3]
    p4 = -v[0] + v[1] - v[2] + v[3]
    return v[1] + t * (p2 + t * (p3 + t * p4))


_BETWEEN: dict[int, Callable[[list[Tensor], Tensor], Tensor]] = {
    1: lambda v, t: v[0],
    2: _linear,
    4: _cubic,
}
_OFFSETS = {1: (0,), 2: (0, 1), 4: (-1, 0, 1, 2)}


def _grid(images: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    height, width = images.shape[-2:]
    rows = torch.arange(height, dtype=dtype, device=images.device)[:, None]
    return rows, torch.arange(width, dtype=dtype, device=images.device)


def _fix(value: Tensor) -> Tensor:
    return (value * 65536.0 + 0.5).floor().long()


def _take(images: Tensor, index: Tensor) -> Tensor:
    """Take the pixels at an index (B, H, W) into an image's pixels, row by row."""
    return images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).view_as(images)


def _filled(value: Tensor, y: Tensor, x: Tensor, fill: Colour) -> Tensor:
    """Fill the pixels taken from outside of the image."""
    height, width = value.shape[-2:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # Made on the device: a copy from the host cannot be captured in a CUDA graph.
    colour = torch.cat([value.new_full((1, 1, 1, 1), level) for level in fill], dim=1)
    return (value - colour) * inside[:, None] + colour  # modulo 256; faster than a selection
