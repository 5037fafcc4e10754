"""Pillow's hue shift on batches, through its 8-bit HSV, bit for bit.

Pillow mixes single and double precision; the roundings to single are at the same places here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of uint8 images (B, 3, H, W) by `shift` (B,) 255ths of the circle."""
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    hue = _hue(images, high, low)
    hue = (hue + shift.long()[:, None, None, None]) & 255
    saturation = ((high - low).float() / high.clamp(min=1)).double().mul(255).floor()
    return _rgb(hue, saturation, high.double())


def _hue(images: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """Return the hue (B, 1, H, W) as int64 from 0 to 255; of gray it is 0."""
    red, green, blue = ((high - images).float() / (high - low).clamp(min=1)).split(1, dim=1)
    turn = torch.where(
        images[:, 0:1] == high,
        blue - green,
        torch.where(
            images[:, 1:2] == high,
            (2 + red.double() - blue).float(),
            (4 + green.double() - red).float(),
        ),
    )
    return ((turn.double() / 6 + 1) % 1).float().double().mul(255).long()


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sixth = hue.double() * 6 / 255
    sector = sixth.floor()
    part = (sixth - sector).float()
    share = (saturation / 255).float()
    least = value * (1 - share.double())
    falling = value * (1 - (share * part).double())
    rising = value * (1 - share.double() * (1 - part.double()))
    # Green and blue go through the same six steps as red, two and four sectors later.
    place = (sector.long() + 4 * torch.arange(3, device=hue.device)[:, None, None]) % 6
    rgb = torch.where(place == 1, falling, value)
    rgb = torch.where((place == 2) | (place == 3), least, rgb)
    rgb = torch.where(place == 4, rising, rgb)
    return (rgb + 0.5).to(torch.uint8)
