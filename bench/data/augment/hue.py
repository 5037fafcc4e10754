"""Pillow's hue shift on batches, through its 8-bit HSV, bit for bit.

Pillow mixes single and double precision; the roundings to single are at the same places here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.augment.exact import divide, to_bytes


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of uint8 images (B, 3, H, W) by `shift` (B,) 255ths of the circle."""
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    spread = (high - low).float()
    hue = _hue(images, high, spread) + shift.int()[:, None, None, None]
    saturation = (spread / high.clamp(min=1)).mul_(255).floor_()
    return _rgb(hue & 255, saturation, high)


def _hue(images: Tensor, high: Tensor, spread: Tensor) -> Tensor:
    """Return the hue (B, 1, H, W) as int32 from 0 to 255; of gray it is 0."""
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
    """Turn planes (B, 1, H, W) of hue, saturation and value, 0 to 255, to images."""
    sixth = divide(hue.double() * 6, 255)
    sector = sixth.floor()
    part = (sixth - sector).float()
    share = divide(saturation.float(), 255)
    least = value * (1 - share.double())
    falling = value * (1 - (share * part).double())
    rising = value * (1 - share.double() * (1 - part.double()))
    levels = torch.cat([value, *(to_bytes(v + 0.5) for v in (falling, least, rising))], dim=1)
    # Over the six sectors red is value, falling, least, least, rising, value; green and blue are the same,
    # four and two sectors on.
    ahead = 4 * torch.arange(3, dtype=torch.uint8, device=hue.device) % 6
    place = to_bytes(sector) + ahead[:, None, None]
    place = place - (place > 5).to(torch.uint8) * 6
    place = (place - (place > 2).to(torch.uint8)) & 3
    return levels.flatten(2).gather(1, place.flatten(2).long()).view_as(place)
