"""Pillow's colour operations on batches: uint8 images (B, 3, H, W), one number (B,) for each image.

All are bit for bit what Pillow 13 gives. Its blend truncates and does not round, its gray has 16-bit
weights, and its sums are small enough to be exact in the types used here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.augment.exact import divide, to_bytes


def gray(images: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) as int32, as `convert("L")`."""
    red, green, blue = images.int().split(1, dim=1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def blend(low: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Go from `low` (0) to the images (1) and beyond, as `Image.blend`."""
    low, weight = low.float(), factor.float()[:, None, None, None]
    return to_bytes(images.float().sub_(low).mul_(weight).add_(low).clamp_(0, 255))


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
    smooth[..., 1:-1, 1:-1] = to_bytes(divide(total, 13) + 0.5)
    return blend(smooth, images, factor)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert all levels from `threshold` on; 0 inverts the image."""
    above = images.short() >= threshold.ceil().short()[:, None, None, None]
    return images ^ above.to(torch.uint8).neg_()


def solarize_add(images: Tensor, add: Tensor) -> Tensor:
    """Add to the levels below 128."""
    more = (images < 128) * add.short()[:, None, None, None]
    return (images + more).clamp_(max=255).to(torch.uint8)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the first `bits` bits of each level."""
    dropped = 8 - bits.long().clamp(0, 8)
    mask = 256 - torch.bitwise_left_shift(torch.ones_like(dropped), dropped)
    return images & mask.to(torch.uint8)[:, None, None, None]


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel's levels to 0..255; a channel of one level stays."""
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    # Not `255 / x`: torch computes it as a product with the reciprocal, off in the last place.
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1.0)
    level = torch.arange(256, dtype=torch.float64, device=images.device)
    table = (level * scale + -low * scale).clamp_(0, 255)
    return _look_up(images, torch.where(high > low, table, level))


def equalize(images: Tensor) -> Tensor:
    """Spread each channel's levels evenly, by its cumulated histogram."""
    flat = images.flatten(2).long()
    one = torch.ones((), dtype=torch.int32, device=images.device)
    histogram = one.new_zeros((*flat.shape[:2], 256)).scatter_add_(2, flat, one.expand_as(flat))
    highest = histogram.gather(2, flat.amax(2, keepdim=True))
    step = divide(flat.shape[2] - highest, 255).floor_()
    below = histogram.cumsum(2, dtype=torch.int32) - histogram
    table = ((below + (step / 2).floor_()) / step.clamp(min=1)).clamp_(max=255)
    return _look_up(images, torch.where(step > 0, table, torch.arange(256, device=images.device)))


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each level by its entry in the channel's table (B, 3, 256)."""
    return to_bytes(tables).gather(2, images.flatten(2).long()).view_as(images)
