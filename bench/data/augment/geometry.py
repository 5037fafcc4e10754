"""Operations that move pixels: crop, flip, rotation, resized crop, and the crop of given boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.augment.affine import nearest, rotation
from bench.data.augment.op import change
from bench.data.augment.resize import resize


@dataclass(frozen=True)
class Crop:
    """Cut each image at a random place out of itself with a black border.

    The border is a share of the side: the papers' 4 of 32 pixels, and so 1 of 8.
    """

    border: float = 1 / 8

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the top left corner within the bordered image, in pixels."""
        places = 2 * int(size * self.border) + 1
        return {"top": rng.integers(places, size=n), "left": rng.integers(places, size=n)}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Gather every crop as a window of the bordered images."""
        size = images.shape[-1]
        bordered = F.pad(images, (int(size * self.border),) * 4)
        windows = bordered.unfold(2, size, 1).unfold(3, size, 1)
        each = torch.arange(len(images), device=images.device)
        return windows[each, :, tables["top"], tables["left"]]


@dataclass(frozen=True)
class Flip:
    """Mirror left and right, every other image on average."""

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

    Area is a uniform share of the image from `scale`, the ratio of the sides is log-uniform. Of ten tries
    the first that fits is taken, of none the whole (square) image.
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
        """Resize each crop; nothing outside of it is seen."""
        return resize(images, tables["box"], tables["box"], images.shape[-1])


def crop_boxes(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resize boxes of uint8 images (B, 3, H, W) to (B, 3, size, size), bilinear.

    `boxes` (B, 4) are x0, y0, x1, y1 in shares of the side, of any fraction; as in Pillow's
    `resize(box=...)`, pixels on a box's edge count by their share and its neighbours take part.
    """
    side = images.shape[-1]
    nothing, all_of_it = torch.zeros_like(boxes[:, :2]), torch.full_like(boxes[:, :2], side)
    return resize(images, boxes * side, torch.cat([nothing, all_of_it], dim=1), size)
