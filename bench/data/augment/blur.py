"""Pillow's GaussianBlur on batches, bit for bit, for radii up to 2.4 pixels.

Pillow stands in for the Gaussian by three box blurs along the rows and three along the columns, each with
integer weights of 24 bits and a rounding to uint8. Levels are taken from -128 to 127 here, so that the sums
fit into int32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.augment.exact import divide

ONE = 2**24
MOST_RADIUS = 2.4


def gaussian_blur(images: Tensor, radius: Tensor) -> Tensor:
    """Blur uint8 images (B, 3, H, W), each with a `radius` (B,), the Gaussian's standard deviation."""
    here, near, far = (w.int()[:, None, None, None] for w in _weights(radius))
    missing = ONE - (here + 2 * near + 2 * far)  # 1 where the box's size does not divide 2**24
    half = ONE // 2 - 128 * missing
    level = images.int() - 128
    for _ in ("rows", "columns"):
        for _ in range(3):
            first, last = level[..., :1], level[..., -1:]
            wide = torch.cat([first, first, level, last, last], dim=-1)
            total = (wide[..., 1:-3] + wide[..., 3:-1]).mul_(near).add_(level * here).add_(half)
            total += (wide[..., :-4] + wide[..., 4:]).mul_(far)
            level = total >> 24
        level = level.transpose(-1, -2)
    return (level + 128).to(torch.uint8)


def _weights(radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the box's weights of pixels 0, 1 and 2 away, in 2**-24.

    The box's half width has a whole part, 0 or 1 here, and the rest of it is the weight of the pixel on
    the edge: Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering"
    (2011), in single precision where Pillow's is.
    """
    variance = divide(radius.float().square(), 3)
    length = (12 * variance.double() + 1).sqrt().float()
    whole = ((length - 1) / 2).floor()
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    half = whole + rest / (6 * (variance - (whole + 1) * (whole + 1)))
    inner = (torch.full_like(half, ONE) / (half * 2 + 1)).long()
    edge = (ONE - (2 * half.long() + 1) * inner) // 2
    wide = half >= 1
    return inner, torch.where(wide, inner, edge), torch.where(wide, edge, 0)
