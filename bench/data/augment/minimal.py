"""LIFT+'s minimalist augmentation: square crops whose least area grows until the whole image is left."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bench.data.augment.geometry import ResizedCrop


@dataclass(frozen=True)
class MinimalCrop(ResizedCrop):
    """Resize a square crop of random area to the image's size; see `at`. The authors' resize is bicubic."""

    ratio: tuple[float, float] = (1.0, 1.0)

    def at(self, epoch: int, epochs: int) -> MinimalCrop:
        """Return the crop of an epoch, whose least area grows from 8 % of the image to all of it.

        With u from 0 to 1 over the epochs, the share of the way is 1 - sqrt(1 - u^2), the authors' "convex".
        """
        u = epoch / max(epochs - 1, 1)
        least, most = MinimalCrop.scale
        return replace(self, scale=(least + (most - least) * (1 - math.sqrt(1 - u * u)), most))
