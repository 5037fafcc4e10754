"""Operations that follow the geometry: colour jitter, grayscale, blur, Cutout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.data.augment.blur import MOST_RADIUS, gaussian_blur
from bench.data.augment.hue import shift_hue
from bench.data.augment.op import How, by_kind, change
from bench.data.augment.pixels import brightness, color, contrast, gray


@dataclass(frozen=True)
class Jitter:
    """Change brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter.

    Factors are uniform from 1 - `strength` to 1 + `strength`, the hue moves by up to `hue` of the circle,
    and all of it happens to an image with `probability`.
    """

    strength: float = 0.4
    hue: float = 0.1
    probability: float = 0.8

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the four numbers (n, 4), and which is used 1st to 4th (n, 4; from 1, 0 for none)."""
        order = rng.permuted(np.tile([1, 2, 3, 4 if self.hue else 0], (n, 1)), axis=1)
        order[rng.random(n) >= self.probability] = 0
        values = rng.uniform(1 - self.strength, 1 + self.strength, (n, 4))
        values[:, 3] = np.trunc(rng.uniform(-self.hue, self.hue, n) * 255)
        return {"order": order, "values": values}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Go through the places of the order."""
        for kind in tables["order"].unbind(1):
            images = by_kind(images, kind, _JITTER, tables["values"])
        return images


_JITTER: tuple[How, ...] = (
    None,
    lambda some, values: brightness(some, values[:, 0]),
    lambda some, values: contrast(some, values[:, 1]),
    lambda some, values: color(some, values[:, 2]),
    lambda some, values: shift_hue(some, values[:, 3]),
)


@dataclass(frozen=True)
class Grayscale:
    """Take the colour out of one image in five."""

    probability: float = 0.2

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw which images turn gray."""
        return {"chosen": rng.random(n) < self.probability}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Turn the chosen images gray."""
        return change(images, tables["chosen"], lambda x: gray(x).to(torch.uint8).expand_as(x))


@dataclass(frozen=True)
class Blur:
    """Blur every other image with Pillow's GaussianBlur of a radius uniform from 0.1 to 2 pixels.

    The radius is the Gaussian's standard deviation. With `side` it is meant for images of so many pixels, and
    as large a share of any other, up to what the blur can.
    """

    radius: tuple[float, float] = (0.1, 2.0)
    probability: float = 0.5
    side: int | None = None

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw which images are blurred, and the radius."""
        chosen = rng.random(n) < self.probability
        share = size / self.side if self.side else 1
        radius = np.minimum(rng.uniform(*self.radius, n) * share, MOST_RADIUS)
        return {"chosen": chosen, "radius": radius}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Blur the chosen images."""
        return change(images, tables["chosen"], gaussian_blur, tables["radius"])


@dataclass(frozen=True)
class Cutout:
    """Black out a square of half the side: 16 of 32 pixels, 4 of 8 (DeVries and Taylor, 2017).

    Its centre is uniform over all pixels, so that it may stick out. quirk: as in the long-tail
    repositories the hole is 0 before normalisation, so black and not the mean colour.
    """

    share: float = 0.5

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the centre's row and column."""
        return {"y": rng.integers(size, size=n), "x": rng.integers(size, size=n)}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Fill from half a hole before the centre to half a hole after it, excluded."""
        size = images.shape[-1]
        half = int(size * self.share) // 2
        place = torch.arange(size, device=images.device)
        row, column = (place - tables[axis][:, None] for axis in ("y", "x"))
        row, column = ((-half <= d) & (d < half) for d in (row, column))
        return images * ~(row[:, :, None] & column[:, None, :])[:, None]
