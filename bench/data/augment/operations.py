"""The operations of policies: geometry, which moves pixels, and then colours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.augment.affine import nearest, resize, rotation
from bench.data.augment.op import How, by_kind, change
from bench.data.augment.pixels import MOST_RADIUS, brightness, color, contrast, gaussian_blur, gray, shift_hue


@dataclass(frozen=True)
class Crop:
    """Crop each image, padded with a black border, at a random offset.

    The border is a share of the side: the papers' 4 of 32 pixels, so 1 of 8.
    """

    border: float = 1 / 8

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the top left corner within the bordered image, in pixels."""
        offsets = 2 * int(size * self.border) + 1
        return {"top": rng.integers(offsets, size=n), "left": rng.integers(offsets, size=n)}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Gather the crops as windows of the padded images."""
        size = images.shape[-1]
        bordered = F.pad(images, (int(size * self.border),) * 4)
        windows = bordered.unfold(2, size, 1).unfold(3, size, 1)
        each = torch.arange(len(images), device=images.device)
        return windows[each, :, tables["top"], tables["left"]]


@dataclass(frozen=True)
class Flip:
    """Mirror left and right with probability 1/2."""

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw which images are mirrored."""
        return {"chosen": rng.random(n) < 0.5}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Mirror the chosen images."""
        return change(images, tables["chosen"], lambda some: some.flip(-1))


@dataclass(frozen=True)
class Rotation:
    """Rotate about the centre by a uniform angle: nearest pixel, black outside (RIDE, SADE, BalPoE)."""

    degrees: float = 15.0

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the map from output to input pixels, (n, 6)."""
        return {"matrix": rotation(rng.uniform(-self.degrees, self.degrees, n), size)}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Rotate all images."""
        return nearest(images, tables["matrix"], (0, 0, 0))


@dataclass(frozen=True)
class ResizedCrop:
    """Resize a crop of random area and shape to the image's size, as torchvision's RandomResizedCrop.

    The area is a uniform share of the image in `scale`, the ratio of the sides is log-uniform. The first of
    ten tries that fits is taken, or the whole (square) image if none does.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the boxes (n, 4) as x0, y0, x1, y1 in whole pixels."""
        area = size * size * rng.uniform(*self.scale, (n, 10))
        least, most = np.log(self.ratio)
        ratio = np.exp(rng.uniform(least, most, (n, 10)))
        width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (width > 0) & (width <= size) & (height > 0) & (height <= size)
        first = np.arange(n), fits.argmax(1)
        width, height = (np.where(fits.any(1), s[first], size).astype(int) for s in (width, height))
        left, top = rng.integers(size - width + 1), rng.integers(size - height + 1)
        return {"box": np.stack([left, top, left + width, top + height], axis=1)}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Resize each crop; pixels outside it are not used."""
        return resize(images, tables["box"], tables["box"], images.shape[-1])


@dataclass(frozen=True)
class MinimalCrop(ResizedCrop):
    """Resize a square crop of random area (see `at`) to the image's size; the authors' resize is bicubic."""

    ratio: tuple[float, float] = (1.0, 1.0)

    def at(self, epoch: int, epochs: int) -> MinimalCrop:
        """Return the crop of an epoch; its least area grows from 8 % of the image to all of it.

        With u from 0 to 1 over the epochs it has grown by the share 1 - sqrt(1 - u^2), the authors' "convex".
        """
        u = epoch / max(epochs - 1, 1)
        least, most = MinimalCrop.scale
        return replace(self, scale=(least + (most - least) * (1 - math.sqrt(1 - u * u)), most))


def crop_boxes(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resize boxes of uint8 images (B, 3, H, W) to (B, 3, size, size), bilinear.

    `boxes` (B, 4) are x0, y0, x1, y1 in shares of the side, not necessarily whole pixels; as in Pillow's
    `resize(box=...)`, pixels on a box's edge count by their share, and pixels beyond it are used too.
    """
    side = images.shape[-1]
    start, stop = torch.zeros_like(boxes[:, :2]), torch.full_like(boxes[:, :2], side)
    return resize(images, boxes * side, torch.cat([start, stop], dim=1), size)


# -- colours ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Jitter:
    """Change brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter.

    Factors are uniform from 1 - `strength` to 1 + `strength`, the hue changes by up to `hue` of the circle;
    an image is jittered with `probability`.
    """

    strength: float = 0.4
    hue: float = 0.1
    probability: float = 0.8

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the four values (n, 4) and the order of the operations (n, 4; from 1, 0 for none)."""
        order = rng.permuted(np.tile([1, 2, 3, 4 if self.hue else 0], (n, 1)), axis=1)
        order[rng.random(n) >= self.probability] = 0
        values = rng.uniform(1 - self.strength, 1 + self.strength, (n, 4))
        values[:, 3] = np.trunc(rng.uniform(-self.hue, self.hue, n) * 255)
        return {"order": order, "values": values}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the operations in their order."""
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
    """Remove the colour with `probability`."""

    probability: float = 0.2

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw which images turn gray."""
        return {"chosen": rng.random(n) < self.probability}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Turn the chosen images gray."""
        return change(images, tables["chosen"], lambda x: gray(x).to(torch.uint8).expand_as(x))


@dataclass(frozen=True)
class Blur:
    """Blur with `probability`, by Pillow's GaussianBlur of a radius uniform in `radius`, in pixels.

    The radius is the Gaussian's standard deviation. With `side` it is that of images of `side` pixels, and
    scales with the image's side, up to `MOST_RADIUS`.
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

    Its centre is uniform over all pixels, so it may extend beyond the image. quirk: as in the long-tail
    repositories the hole is 0 before normalisation, so black and not the mean colour.
    """

    share: float = 0.5

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the centre's row and column."""
        return {"y": rng.integers(size, size=n), "x": rng.integers(size, size=n)}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Fill from half a side before the centre to half a side after it, exclusive."""
        size = images.shape[-1]
        half = int(size * self.share) // 2
        index = torch.arange(size, device=images.device)
        row, column = (index - tables[axis][:, None] for axis in ("y", "x"))
        row, column = ((-half <= d) & (d < half) for d in (row, column))
        return images * ~(row[:, :, None] & column[:, None, :])[:, None]
