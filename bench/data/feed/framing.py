"""Framing: how a picture of any size becomes a square for training or testing.

A policy that starts with a resized crop takes it from the whole picture; any other starts from the frame of
the test. The operations that follow are those of images in memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.data.augment import POLICIES, Policy, policy
from bench.data.augment.operations import MinimalCrop, ResizedCrop

#: timm's training transforms, for pictures only: arguments of `timm.data.create_transform`.
TIMM: dict[str, dict[str, Any]] = {"timm_randaugment": {"auto_augment": "rand-m9-mstd0.5-inc1"}}

#: The policies of pictures.
NAMES = (*POLICIES, *TIMM)

#: The share of the resized shorter side in the frame of a test: 224 of 256 pixels.
SEEN = 224 / 256


def test_frame(picture: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to size / 224 * 256 pixels, bilinear, and cut out the centre."""
    from bench.vision import torchvision  # importing it takes seconds

    transforms = torchvision.transforms.functional
    return transforms.center_crop(transforms.resize(picture, round(size / SEEN)), [size, size])


@dataclass(frozen=True)
class PicturePolicy(Policy):
    """A policy whose tables also have the frame of each picture, under the keys "frame.*"."""

    crop: ResizedCrop | None = None

    def draw(self, rng: np.random.Generator, n: int, image_size: int) -> dict[str, np.ndarray]:
        """Draw all random numbers of `n` pictures of any size."""
        frame: dict[str, np.ndarray] = {}
        if self.crop is not None:
            least, most = np.log(self.crop.ratio)
            frame = {
                "frame.area": rng.uniform(*self.crop.scale, (n, 10)),
                "frame.ratio": np.exp(rng.uniform(least, most, (n, 10))),
                "frame.offset": rng.random((n, 2)),
            }
        return frame | super().draw(rng, n, image_size)

    def at(self, epoch: int, epochs: int) -> PicturePolicy:
        policy = super().at(epoch, epochs)
        crop = self.crop
        return replace(policy, crop=crop.at(epoch, epochs) if isinstance(crop, MinimalCrop) else crop)

    def frame(self, picture: Image.Image, row: Mapping[str, np.ndarray], size: int) -> Image.Image:
        """Return the square of `size` pixels to which the geometry is applied, by one row of the tables."""
        if self.crop is None:
            return test_frame(picture, size)
        area, ratio, offset = (row[f"frame.{name}"] for name in ("area", "ratio", "offset"))
        box = resized_crop_box(picture.size, area, ratio, offset, self.crop.ratio)
        return picture.crop(box).resize((size, size), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class TimmPolicy(PicturePolicy):
    """One of timm's transforms, which draws its own random numbers from our seed."""

    name: str = ""

    def draw(self, rng: np.random.Generator, n: int, image_size: int) -> dict[str, np.ndarray]:
        """Draw a seed for each picture."""
        return {"frame.seed": rng.integers(2**32, size=n)}

    def frame(self, picture: Image.Image, row: Mapping[str, np.ndarray], size: int) -> Image.Image:
        """Return the transformed picture."""
        with _seeded(int(row["frame.seed"])):
            pixels = _timm_transform(self.name, size)(picture)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def picture_policy(name: str) -> PicturePolicy:
    """Return the policy of a name for pictures; the error about an unknown name has the nearest one."""
    if name in TIMM:
        return TimmPolicy(name=name)
    ops = policy(name).geometry_ops
    crop = ops[0] if ops and isinstance(ops[0], ResizedCrop) else None
    return PicturePolicy(ops if crop is None else ops[1:], policy(name).colour_ops, crop)


def resized_crop_box(
    size: tuple[int, int],
    area: np.ndarray,
    ratio: np.ndarray,
    offset: np.ndarray,
    ratios: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Return the box (x0, y0, x1, y1) of torchvision's RandomResizedCrop in a picture.

    Args:
        size: the picture's width and height.
        area, ratio: of ten tries, the share of the picture's area, and width over height.
        offset: of the box, horizontal and vertical, in [0, 1).
        ratios: bounds of the largest box in the middle, which is used if none of the tries fits.
    """
    across, down = size
    widths = np.rint(np.sqrt(area * across * down * ratio)).astype(int)
    heights = np.rint(np.sqrt(area * across * down / ratio)).astype(int)
    for width, height in zip(widths.tolist(), heights.tolist(), strict=True):
        if 0 < width <= across and 0 < height <= down:
            left, top = int(offset[0] * (across - width + 1)), int(offset[1] * (down - height + 1))
            return left, top, left + width, top + height
    width = min(across, max(1, round(down * ratios[1])))
    height = min(down, max(1, round(across / ratios[0])))
    left, top = (across - width) // 2, (down - height) // 2
    return left, top, left + width, top + height


@cache
def _timm_transform(name: str, size: int) -> Any:
    from bench.vision import timm

    create: Any = timm.data.create_transform  # type: ignore[attr-defined]
    return create(size, is_training=True, normalize=False, **TIMM[name])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that timm's transforms use, and restore them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
