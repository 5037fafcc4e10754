"""Pillow's colour operations on batches: uint8 images (B, 3, H, W), one number (B,) for each image.

All are bit for bit what Pillow 13 gives. Its blend truncates and does not round, its gray has 16-bit
weights, and its sums are small enough to be exact in the types used here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gray(images: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) as int32, as `convert("L")`."""
    red, green, blue = images.int().split(1, dim=1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def blend(low: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Go from `low` (0) to the images (1) and beyond, as `Image.blend`."""
    low, weight = low.float(), factor.float()[:, None, None, None]
    return images.float().sub_(low).mul_(weight).add_(low).clamp_(0, 255).to(torch.uint8)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return blend(torch.zeros((), device=images.device), images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the gray image, rounded to a level."""
    luma = gray(images)
    pixels = luma[0].numel()
    twice = 2 * luma.sum((1, 2, 3), keepdim=True) + pixels
    return blend(twice.div(2 * pixels, rounding_mode="floor"), images, factor)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image."""
    return blend(gray(images), images, factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with a 3x3 mean of centre weight 5; pixels on the edge stay as they are."""
    level = images.short()
    line = level[..., :-2] + level[..., 1:-1] + level[..., 2:]
    total = line[..., :-2, :] + line[..., 1:-1, :] + line[..., 2:, :] + 4 * level[..., 1:-1, 1:-1]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (2 * total + 13).div_(26, rounding_mode="floor").to(torch.uint8)
    return blend(smooth, images, factor)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert all levels from `threshold` on; 0 inverts the image."""
    level = images.short()
    return torch.where(level < threshold.ceil().short()[:, None, None, None], level, 255 - level).to(
        torch.uint8
    )


def solarize_add(images: Tensor, add: Tensor) -> Tensor:
    """Add to the levels below 128."""
    level = images.short()
    more = (level + add.short()[:, None, None, None]).clamp(max=255)
    return torch.where(level < 128, more, level).to(torch.uint8)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the first `bits` bits of each level."""
    mask = 256 - torch.bitwise_left_shift(torch.ones_like(bits, dtype=torch.int64), 8 - bits.long())
    return images & mask.to(torch.uint8)[:, None, None, None]


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel's levels to 0..255; a channel of one level stays."""
    low, high = (edge.double()[..., None] for edge in (_flat(images).amin(2), _flat(images).amax(2)))
    # Not `255 / x`, which torch computes as a product with the reciprocal, one unit in the last place off.
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1.0)
    level = _levels(images).double()
    table = (level * scale + -low * scale).clamp(0, 255)
    return _look_up(images, torch.where(high > low, table, level))


def equalize(images: Tensor) -> Tensor:
    """Spread each channel's levels evenly, by its cumulated histogram."""
    flat = _flat(images)
    ones = torch.ones((1, 1, 1), dtype=torch.int32, device=images.device)
    empty = ones.new_zeros((*flat.shape[:2], 256))
    histogram = empty.scatter_add(2, flat.long(), ones.expand(flat.shape))
    high = flat.amax(2, keepdim=True).long()
    step = (flat.shape[2] - histogram.gather(2, high)).div(255, rounding_mode="floor")
    below = histogram.cumsum(2) - histogram
    table = (below + step.div(2, rounding_mode="floor")).div(step.clamp(min=1), rounding_mode="floor")
    level = _levels(images).expand_as(table)
    return _look_up(images, torch.where(step > 0, table.clamp(max=255), level))


def _flat(images: Tensor) -> Tensor:
    return images.flatten(2)


def _levels(images: Tensor) -> Tensor:
    return torch.arange(256, device=images.device).expand(1, 1, 256)


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each level by its entry in the channel's table (B, 3, 256)."""
    return tables.to(torch.uint8).gather(2, _flat(images).long()).view_as(images)
