"""Pillow's affine transforms and its resize on batches, with a matrix or a box for each image.

A matrix (n, 6) maps a pixel (x, y) of the result to a x + b y + c, d x + e y + f of the image; pixels from
outside are filled. Matrices are made on the host, so that all devices use the same float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bench.data.augment.op import divide, to_bytes

Colour = tuple[int, int, int]


def matrices(*elements: ArrayLike) -> np.ndarray:
    """Stack six elements, numbers or arrays (n,), to matrices (n, 6)."""
    return np.stack(np.broadcast_arrays(*elements), axis=-1).astype(np.float64)


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
    """Interpolate 1, 2 (linear) or 4 (cubic) pixels in a row (`across`) and in a column (`down`).

    One pixel is exact, and cheaper, in a direction in which the matrix does not move pixels. The cubic kernel
    of Pillow's transforms has a = -1 (its resize has -0.5, torch's grid_sample -0.75), and it truncates.
    """
    a, b, c, d, e, f = (m[:, None, None] for m in matrix.unbind(1))
    rows, columns = (index + 0.5 for index in _grid(images, torch.float64))
    x = a * columns + b * rows + c
    y = d * columns + e * rows + f
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    dx, dy = (x - 0.5 - left)[:, None], (y - 0.5 - top)[:, None]
    height, width = images.shape[-2:]
    lines = [(top + j).clamp(0, height - 1).long() * width for j in _OFFSETS[down]]
    points = [(left + i).clamp(0, width - 1).long() for i in _OFFSETS[across]]
    levels = images.double()
    values = [_BETWEEN[across]([_take(levels, line + point) for point in points], dx) for line in lines]
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
    """Return the pixels at flat indices (B, H, W)."""
    return images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).view_as(images)


def _filled(value: Tensor, y: Tensor, x: Tensor, fill: Colour) -> Tensor:
    """Fill the pixels from outside the image."""
    height, width = value.shape[-2:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # made on the device, as a copy from the host cannot be captured in a CUDA graph
    colour = torch.cat([value.new_full((1, 1, 1, 1), level) for level in fill], dim=1)
    return (value - colour) * inside[:, None] + colour  # modulo 256; faster than torch.where


_MATRICES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "rotate": rotation,
    "shear_x": lambda share, size: matrices(1, share, 0, 0, 1, 0),
    "shear_y": lambda share, size: matrices(1, 0, 0, share, 1, 0),
    "translate_x": lambda share, size: matrices(1, 0, share * size, 0, 1, 0),
    "translate_y": lambda share, size: matrices(1, 0, 0, 0, 1, share * size),
}
MOVES = frozenset(_MATRICES)


def numbers(name: str, value: np.ndarray, size: int) -> np.ndarray:
    """Return the rows (n, 6) of an operation for its signed magnitudes (n,).

    Units: degrees for rotation, shares of the side for shear and translation, levels for `solarize`, bits for
    `posterize`, the factor for a blend.
    """
    if name in MOVES:
        return _MATRICES[name](value, size)
    return matrices(value, 0, 0, 0, 0, 0)


# -- resize: bilinear, antialiased, bit for bit ----------------------------------------------------
# Pillow weights pixels by a triangle with integer weights of 22 bits, and rounds to uint8 after the rows and
# again after the columns. In float64 these sums are exact, so the order of summation does not matter.
_ONE = 2**22


def resize(images: Tensor, box: Tensor, seen: Tensor, size: int) -> Tensor:
    """Resize `box` (B, 4) of each image (B, 3, H, W) to `size` squared.

    Boxes are x0, y0, x1, y1 in pixels; only pixels inside `seen` (B, 4) are used.
    """
    box = box.float()  # as in Pillow
    across = _weights(box[:, 0], box[:, 2], seen[:, 0], seen[:, 2], images.shape[3], size)
    down = _weights(box[:, 1], box[:, 3], seen[:, 1], seen[:, 3], images.shape[2], size)
    return _rows_resized(_rows_resized(images, across), down)


def _rows_resized(images: Tensor, weights: Tensor) -> Tensor:
    """Resize the rows of images (B, 3, H, W), and swap rows and columns."""
    total = images.flatten(1, 2).double() @ weights.transpose(1, 2)
    level = to_bytes(total.add_(_ONE // 2).div_(_ONE))
    return level.unflatten(1, images.shape[1:3]).transpose(2, 3).contiguous()


def _weights(start: Tensor, stop: Tensor, low: Tensor, high: Tensor, inside: int, outside: int) -> Tensor:
    """Return the weight of each of `inside` pixels in each of `outside` pixels: (B, outside, inside)."""
    start, stop, low, high = (t[:, None, None] for t in (start, stop, low, high))
    scale = divide((stop - start).double(), outside)
    reach = scale.clamp(min=1.0)
    to = torch.arange(outside, dtype=torch.float64, device=start.device)[:, None]
    centre = start.double() + (to + 0.5) * scale
    pixel = torch.arange(inside, dtype=torch.float64, device=start.device)
    triangle = (pixel - centre).add_(0.5).div_(reach).abs_().neg_().add_(1).clamp_(min=0)
    triangle *= (pixel >= low) & (pixel < high)
    return triangle.div_(triangle.sum(2, keepdim=True)).mul_(_ONE).add_(0.5).floor_()
