"""Distortions of a given strength for each image: CUDA's curriculum of augmentation (Ahn et al., ICLR 2023).

An image of level s gets s operations, drawn with replacement from 22, each at s / 30 of its range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.data.augment import pixels
from bench.data.augment.affine import nearest, numbers, resize
from bench.data.augment.op import How, divide, in_turn, to_bytes
from bench.data.augment.operations import Cutout
from bench.data.augment.pixels import COLOURS, gaussian_blur
from bench.data.augment.policy import Policy

#: The highest level, and the one at which operations would reach the ends of their ranges.
HIGHEST, FULL = 10, 30


def _kernel(weights: tuple[int, int, int], divisor: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a 3x3 filter with weights of centre, sides and corners; pixels on the edge do not change."""
    centre, side, corner = weights

    def filtered(images: Tensor, row: Tensor) -> Tensor:
        level = images.int()
        inner = level[..., 1:-1, 1:-1]
        sides = level[..., :-2, 1:-1] + level[..., 2:, 1:-1] + level[..., 1:-1, :-2] + level[..., 1:-1, 2:]
        corners = level[..., :-2, :-2] + level[..., :-2, 2:] + level[..., 2:, :-2] + level[..., 2:, 2:]
        total = centre * inner + side * sides + corner * corners
        result = images.clone()
        result[..., 1:-1, 1:-1] = to_bytes((divide(total, divisor) + 0.5).clamp(0, 255))
        return result

    return filtered


def _enlarge(images: Tensor, row: Tensor) -> Tensor:
    """Enlarge the middle of images by a factor: bilinear, where the authors' is Lanczos."""
    size = images.shape[-1]
    large = (size * row[:, 0]).floor()
    start = ((large / 2).floor() - size // 2) * size / large
    end = start + size * size / large
    box = torch.stack([start, start, end, end], dim=1)
    whole = torch.cat([torch.zeros_like(box[:, :2]), torch.full_like(box[:, :2], size)], dim=1)
    return resize(images, box, whole, size)


def _solarize_add(images: Tensor, row: Tensor) -> Tensor:
    """Add to all levels, then invert those from 128 on (quirk: elsewhere only lower ones are added to)."""
    more = to_bytes((images + row[:, 0][:, None, None, None]).clamp(0, 255))
    return pixels.solarize(more, torch.full_like(row[:, 0], 128))


def _moved(images: Tensor, row: Tensor) -> Tensor:
    return nearest(images, row, (0, 0, 0))


_Values = Callable[[np.ndarray], np.ndarray]


def _between(low: float, high: float) -> _Values:
    return lambda share: low + share * (high - low)


@dataclass(frozen=True)
class _Kind:
    """An operation: `how` changes images by rows of numbers, `value` is its value at a share of its range."""

    how: How
    value: _Values = lambda share: 0 * share
    numbers: str = ""  # its name in `affine.numbers`, if its row is more than its value
    signed: bool = False


#: quirk: strengths are not monotone. At level 1 `solarize` inverts nearly all levels and blends leave little
#: of the colours, at level 10 less; `posterize` keeps one bit at every level; at level 10 a translation moves
#: 32-pixel images out of sight.
KINDS = (
    _Kind(lambda some, row: some.flip(-2)),
    _Kind(lambda some, row: some.flip(-1)),
    _Kind(_kernel((10, -1, -1), 2)),
    _Kind(_kernel((10, -1, 0), 6)),
    _Kind(_kernel((5, 1, 1), 13)),
    _Kind(COLOURS["autocontrast"]),
    _Kind(COLOURS["equalize"]),
    _Kind(lambda some, row: 255 - some),
    _Kind(lambda some, row: gaussian_blur(some, row[:, 0]), _between(0, 2)),
    _Kind(_enlarge, _between(1, 1.5)),
    _Kind(_moved, _between(0, 30), "rotate", signed=True),
    _Kind(COLOURS["posterize"], lambda share: np.maximum(np.trunc(4 * share), 1)),
    _Kind(COLOURS["solarize"], _between(0, 256)),
    _Kind(_solarize_add, _between(0, 110)),
    _Kind(COLOURS["color"], _between(0.1, 1.9)),
    _Kind(COLOURS["contrast"], _between(0.1, 1.9)),
    _Kind(COLOURS["brightness"], _between(0.1, 1.9)),
    _Kind(COLOURS["sharpness"], _between(0.1, 1.9)),
    _Kind(_moved, _between(0, 0.3), "shear_x", signed=True),
    _Kind(_moved, _between(0, 0.3), "shear_y", signed=True),
    _Kind(_moved, _between(0, 100), "translate_x", signed=True),
    _Kind(_moved, _between(0, 100), "translate_y", signed=True),
)


@dataclass(frozen=True)
class Distortion:
    """Apply as many operations to each image as its level; the tables are drawn by `draw_at`."""

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw nothing, as the levels are not known here."""
        return {}

    def draw_at(self, rng: np.random.Generator, levels: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Draw operations (n, 10; 1 + index in `KINDS`, 0 for none) and their numbers (n, 10, 6)."""
        n, share = len(levels), levels / FULL
        kind = rng.integers(len(KINDS), size=(n, HIGHEST))
        sign = rng.choice([-1, 1], (n, HIGHEST))
        rows = np.zeros((n, HIGHEST, 6))
        for i, one in enumerate(KINDS):
            chosen = kind == i
            value = one.value(np.broadcast_to(share[:, None], kind.shape)[chosen])
            value = value * sign[chosen] if one.signed else value
            if one.numbers.startswith("translate"):
                value = value / size
            rows[chosen] = numbers(one.numbers, value, size)
        used = np.arange(HIGHEST) < levels[:, None]
        return {"kind": np.where(used, kind + 1, 0), "numbers": rows}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the operations in their order."""
        return in_turn(images, tables, (None, *(one.how for one in KINDS)))


def distorted(policy: Policy) -> Policy:
    """Return a policy with distortions after all its operations, but before a final Cutout."""
    ops = policy.colour_ops
    cut = len(ops) - 1 if ops and isinstance(ops[-1], Cutout) else len(ops)
    return replace(policy, colour_ops=(*ops[:cut], Distortion(), *ops[cut:]))
