"""The operations that AutoAugment and RandAugment draw from, and the numbers each of them needs.

An operation of an image is a row of six numbers: the matrix of one that moves pixels, and of one that
changes colours a single number, in the first place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from bench.data.augment import pixels
from bench.data.augment.affine import matrices, rotation

_MATRICES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "rotate": rotation,
    "shear_x": lambda share, size: matrices(1, share, 0, 0, 1, 0),
    "shear_y": lambda share, size: matrices(1, 0, 0, share, 1, 0),
    "translate_x": lambda share, size: matrices(1, 0, share * size, 0, 1, 0),
    "translate_y": lambda share, size: matrices(1, 0, 0, 0, 1, share * size),
}
MOVES = frozenset(_MATRICES)


def numbers(name: str, value: np.ndarray, size: int) -> np.ndarray:
    """Return the rows (n, 6) of an operation for its signed magnitudes (n,).

    Rotation is in degrees, shear and translation in shares of the side, `solarize` in levels, `posterize`
    in bits, and a blend has its factor.
    """
    if name in MOVES:
        return _MATRICES[name](value, size)
    return matrices(value, 0, 0, 0, 0, 0)


#: What changes colours, by name: uint8 images (B, 3, H, W) and their rows (B, 6).
COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda some, row: pixels.autocontrast(some),
    "brightness": lambda some, row: pixels.brightness(some, row[:, 0]),
    "color": lambda some, row: pixels.color(some, row[:, 0]),
    "contrast": lambda some, row: pixels.contrast(some, row[:, 0]),
    "equalize": lambda some, row: pixels.equalize(some),
    "posterize": lambda some, row: pixels.posterize(some, row[:, 0]),
    "sharpness": lambda some, row: pixels.sharpness(some, row[:, 0]),
    "solarize": lambda some, row: pixels.solarize(some, row[:, 0]),
    "solarize_add": lambda some, row: pixels.solarize_add(some, row[:, 0]),
}
