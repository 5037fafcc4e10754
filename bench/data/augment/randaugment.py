"""RandAugment (Cubuk et al., 2020) as `rand-n2-m10-mstd0.5` of older timm versions, which BCL uses.

timm's dialect: each of the two operations happens with probability 1/2, its level is normal about 10 and
clipped to 10, and what moves pixels is linear or cubic at random, with ImageNet's mean colour outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bench.data.augment.affine import smooth
from bench.data.augment.op import How, by_kind
from bench.data.augment.operations import COLOURS, MOVES, numbers

_MEAN = (124, 116, 104)  # quirk: of ImageNet, whatever the data set

#: What is done, in the order of the table `kind`.
KINDS: dict[str, How] = {
    "keep": None,
    "linear": lambda some, row: smooth(some, row, _MEAN, across=2, down=2),
    "cubic": lambda some, row: smooth(some, row, _MEAN, across=4, down=4),
    **COLOURS,
}

_Magnitude = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _blend(level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    return 0.1 + 1.8 * level


def _shear(level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    return 0.3 * level * sign


def _shift(level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    return 0.45 * level * sign


#: From a level (0 to 1) and a sign to the magnitude of each of the 15 operations.
OPERATIONS: dict[str, _Magnitude] = {
    "autocontrast": lambda level, sign: 0 * level,
    "equalize": lambda level, sign: 0 * level,
    "invert": lambda level, sign: 0 * level,  # solarizing from level 0 on
    "rotate": lambda level, sign: 30 * level * sign,
    "posterize": lambda level, sign: np.trunc(4 * level),
    "solarize": lambda level, sign: np.trunc(256 * level),
    "solarize_add": lambda level, sign: np.trunc(110 * level),
    "color": _blend,
    "contrast": _blend,
    "brightness": _blend,
    "sharpness": _blend,
    "shear_x": _shear,
    "shear_y": _shear,
    "translate_x": _shift,
    "translate_y": _shift,
}


@dataclass(frozen=True)
class RandAugment:
    """Apply two of 15 operations, drawn with replacement.

    quirk: at level 10, where half the draws lie, `solarize` does nothing, `posterize` keeps four bits.
    """

    level: float = 10.0
    deviation: float = 0.5
    probability: float = 0.5

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the two operations (n, 2; a place in `KINDS`) and their numbers (n, 2, 6)."""
        operation = rng.integers(len(OPERATIONS), size=(n, 2))
        level = rng.normal(self.level, self.deviation, (n, 2)).clip(0, 10) / 10
        sign, cubic = rng.choice([-1, 1], (n, 2)), rng.random((n, 2)) < 0.5
        kind, rows = np.zeros((n, 2), dtype=np.int64), np.zeros((n, 2, 6))
        for place, (name, magnitude) in enumerate(OPERATIONS.items()):
            mine = operation == place
            kind[mine] = _kind(name, cubic[mine])
            rows[mine] = numbers(name, magnitude(level[mine], sign[mine]), size)
        kind[rng.random((n, 2)) >= self.probability] = 0
        return {"kind": kind, "numbers": rows}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the first operations, then the second ones."""
        for turn in range(2):
            kind, rows = tables["kind"][:, turn], tables["numbers"][:, turn]
            images = by_kind(images, kind, tuple(KINDS.values()), rows)
        return images


def _kind(name: str, cubic: np.ndarray) -> np.ndarray | int:
    place = list(KINDS).index
    if name in MOVES:
        return np.where(cubic, place("cubic"), place("linear"))
    return place("solarize" if name == "invert" else name)
