"""Pillow's colour operations on batches: uint8 images (B, 3, H, W), one number (B,) for each image.

All results are bit for bit those of Pillow 13. Its blend truncates and does not round, its gray has 16-bit
weights, and its sums are small enough to be exact in the types used here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.data.augment.op import divide, to_bytes


def gray(images: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) as int32, as `convert("L")`."""
    red, green, blue = images.int().split(1, dim=1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def blend(low: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Interpolate from `low` (0) to the images (1) and extrapolate, as `Image.blend`."""
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
    """Blend with a 3x3 mean of centre weight 5; pixels on the edge do not change."""
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
    """Stretch each channel's levels to 0..255; a channel of one level does not change."""
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    # not `255 / x`, which torch computes with the reciprocal of x: its last bit differs
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1.0)
    level = torch.arange(256, dtype=torch.float64, device=images.device)
    table = (level * scale + -low * scale).clamp_(0, 255)
    return _look_up(images, torch.where(high > low, table, level))


def equalize(images: Tensor) -> Tensor:
    """Equalise each channel's histogram."""
    flat = images.flatten(2).long()
    one = torch.ones((), dtype=torch.int32, device=images.device)
    histogram = one.new_zeros((*flat.shape[:2], 256)).scatter_add_(2, flat, one.expand_as(flat))
    highest = histogram.gather(2, flat.amax(2, keepdim=True))
    step = divide(flat.shape[2] - highest, 255).floor_()
    below = histogram.cumsum(2, dtype=torch.int32) - histogram
    table = ((below + (step / 2).floor_()) / step.clamp(min=1)).clamp_(max=255)
    return _look_up(images, torch.where(step > 0, table, torch.arange(256, device=images.device)))


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each level by its value in the channel's table (B, 3, 256)."""
    return to_bytes(tables).gather(2, images.flatten(2).long()).view_as(images)


#: The operations on colours by name, of uint8 images (B, 3, H, W) and their rows (B, 6).
COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda some, row: autocontrast(some),
    "brightness": lambda some, row: brightness(some, row[:, 0]),
    "color": lambda some, row: color(some, row[:, 0]),
    "contrast": lambda some, row: contrast(some, row[:, 0]),
    "equalize": lambda some, row: equalize(some),
    "posterize": lambda some, row: posterize(some, row[:, 0]),
    "sharpness": lambda some, row: sharpness(some, row[:, 0]),
    "solarize": lambda some, row: solarize(some, row[:, 0]),
    "solarize_add": lambda some, row: solarize_add(some, row[:, 0]),
}


# -- hue, through Pillow's 8-bit HSV ---------------------------------------------------------------
# Pillow mixes single and double precision; values are rounded to single where Pillow does.
def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of uint8 images (B, 3, H, W) by `shift` (B,) 255ths of the circle."""
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    spread = (high - low).float()
    hue = _hue(images, high, spread) + shift.int()[:, None, None, None]
    saturation = (spread / high.clamp(min=1)).mul_(255).floor_()
    return _rgb(hue & 255, saturation, high)


def _hue(images: Tensor, high: Tensor, spread: Tensor) -> Tensor:
    """Return the hue (B, 1, H, W) as int32 from 0 to 255; 0 for gray."""
    red, green, blue = ((high - images).float() / spread.clamp(min=1)).split(1, dim=1)
    red_most = (red == 0).to(torch.uint8)
    green_most = (green == 0).to(torch.uint8) & ~red_most
    turn = (
        (blue - green) * red_most
        + (2 + red.double() - blue).float() * green_most
        + (4 + green.double() - red).float() * (1 - red_most - green_most)
    )
    turn = divide(turn.double(), 6) + 1
    return (turn - turn.floor()).float().double().mul_(255).int()


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Convert planes (B, 1, H, W) of hue, saturation and value, 0 to 255, to images."""
    sixth = divide(hue.double() * 6, 255)
    sector = sixth.floor()
    part = (sixth - sector).float()
    share = divide(saturation.float(), 255)
    least = value * (1 - share.double())
    falling = value * (1 - (share * part).double())
    rising = value * (1 - share.double() * (1 - part.double()))
    levels = torch.cat([value, *(to_bytes(v + 0.5) for v in (falling, least, rising))], dim=1)
    # Over the six sectors red is value, falling, least, least, rising, value; green and blue are the same,
    # four and two sectors later.
    ahead = 4 * torch.arange(3, dtype=torch.uint8, device=hue.device) % 6
    index = to_bytes(sector) + ahead[:, None, None]
    index = index - (index > 5).to(torch.uint8) * 6
    index = (index - (index > 2).to(torch.uint8)) & 3
    return levels.flatten(2).gather(1, index.flatten(2).long()).view_as(index)


# -- blur ------------------------------------------------------------------------------------------
# Pillow approximates the Gaussian by three box blurs along the rows and three along the columns, each with
# integer weights of 24 bits and a rounding to uint8. Levels are shifted to -128..127 here, so that the sums
# fit into int32. Radii are at most 2.4 pixels.
_ONE = 2**24
MOST_RADIUS = 2.4


def gaussian_blur(images: Tensor, radius: Tensor) -> Tensor:
    """Blur uint8 images (B, 3, H, W), each with a `radius` (B,), the Gaussian's standard deviation."""
    here, near, far = (w.int()[:, None, None, None] for w in _box_weights(radius))
    missing = _ONE - (here + 2 * near + 2 * far)  # 1 where the box's size does not divide 2**24
    half = _ONE // 2 - 128 * missing
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


def _box_weights(radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the box's weights of pixels 0, 1 and 2 away, in 2**-24.

    The box's half width has an integer part, 0 or 1 here, and a fraction, the weight of the pixel on the
    edge: Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering"
    (2011), in single precision where Pillow uses it.
    """
    variance = divide(radius.float().square(), 3)
    length = (12 * variance.double() + 1).sqrt().float()
    whole = ((length - 1) / 2).floor()
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    half = whole + rest / (6 * (variance - (whole + 1) * (whole + 1)))
    inner = (torch.full_like(half, _ONE) / (half * 2 + 1)).long()
    edge = (_ONE - (2 * half.long() + 1) * inner) // 2
    wide = half >= 1
    return inner, torch.where(wide, inner, edge), torch.where(wide, edge, 0)
