"""AutoAugment and RandAugment, as in the long-tail repositories.

AutoAugment (Cubuk et al., 2019) is the policy of CIFAR-10, used for CIFAR-100 too. The repositories share one
copy of it, which differs from torchvision's: ten magnitudes for each operation, rotations in one direction
only, nearest pixels except for shear, and gray (128) outside.

RandAugment (Cubuk et al., 2020) is `rand-n2-m10-mstd0.5` of older timm versions, which BCL uses: each of the
two operations is applied with probability 1/2, its level is normal around 10 and clipped to 10, and those
that move pixels are linear or cubic at random, with ImageNet's mean colour outside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bench.data.augment.affine import MOVES, nearest, numbers, smooth
from bench.data.augment.op import How, in_turn
from bench.data.augment.pixels import COLOURS

#: Operation, probability and magnitude (0 to 9), twice for each of the 25 sub-policies.
SUBPOLICIES = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)

#: The values of magnitudes 0 and 9. Inverting is solarizing from level 0 on.
_RANGES = {
    "autocontrast": (0, 0),
    "brightness": (0, 0.9),
    "color": (0, 0.9),
    "contrast": (0, 0.9),
    "equalize": (0, 0),
    "invert": (0, 0),
    "posterize": (8, 4),
    "rotate": (0, 30),
    "sharpness": (0, 0.9),
    "shear_y": (0, 0.3),
    "solarize": (256, 0),
    "translate_x": (0, 150 / 331),
    "translate_y": (0, 150 / 331),
}
_BLENDS = ("brightness", "color", "contrast", "sharpness")
_SIGNED = (*_BLENDS, "shear_y", "translate_x", "translate_y")
_GRAY = (128, 128, 128)

#: The kinds of operation; the table `kind` has their indices.
AUTOAUGMENT: dict[str, How] = {
    "keep": None,
    "move": lambda some, row: nearest(some, row, _GRAY),
    "shear_y": lambda some, row: smooth(some, row, _GRAY, across=1, down=4),
    **{name: how for name, how in COLOURS.items() if name in _RANGES},
}
_KIND_OF = {"invert": "solarize"} | dict.fromkeys(("rotate", "translate_x", "translate_y"), "move")


@dataclass(frozen=True)
class AutoAugment:
    """Apply one of 25 sub-policies: two operations, each with its own probability."""

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the two operations (n, 2; indices in `AUTOAUGMENT`) and their numbers (n, 2, 6)."""
        probability, kind, rows = _tables(size)
        chosen, turn = rng.integers(len(SUBPOLICIES), size=(n, 1)), np.arange(2)
        happens = rng.random((n, 2)) < probability[chosen, turn]
        sign = rng.integers(2, size=(n, 2))
        return {
            "kind": np.where(happens, kind[chosen, turn], 0),
            "numbers": rows[chosen, turn, sign],
        }

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the first operations, then the second ones."""
        return in_turn(images, tables, tuple(AUTOAUGMENT.values()))


@functools.cache
def _tables(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probability and kind (25, 2), and the numbers (25, 2, 2, 6) for both signs."""
    probability = np.array([[p for _, p, _ in pair] for pair in SUBPOLICIES])
    index = list(AUTOAUGMENT).index
    kind = np.array([[index(_KIND_OF.get(name, name)) for name, _, _ in p] for p in SUBPOLICIES])
    rows = [
        [[_numbers(name, m, sign, size) for sign in (-1, 1)] for name, _, m in pair] for pair in SUBPOLICIES
    ]
    return probability, kind, np.array(rows)


def _numbers(name: str, magnitude: int, sign: int, size: int) -> np.ndarray:
    value = np.linspace(*_RANGES[name], 10)[magnitude]
    value = value * sign if name in _SIGNED else value
    value = np.round(value) if name == "posterize" else value
    return numbers(name, 1 + value if name in _BLENDS else value, size)


# -- RandAugment -----------------------------------------------------------------------------------
_MEAN = (124, 116, 104)  # quirk: of ImageNet, for any data set

#: The kinds of operation; the table `kind` has their indices.
RANDAUGMENT: dict[str, How] = {
    "keep": None,
    "linear": lambda some, row: smooth(some, row, _MEAN, across=2, down=2),
    "cubic": lambda some, row: smooth(some, row, _MEAN, across=4, down=4),
    **COLOURS,
}

_Magnitude = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: From a level (0 to 1) and a sign to the magnitude of the 15 operations, in the order that draws use.
OPERATIONS: dict[str, _Magnitude] = {
    **dict.fromkeys(("autocontrast", "equalize", "invert"), lambda level, sign: 0 * level),
    "rotate": lambda level, sign: 30 * level * sign,
    "posterize": lambda level, sign: np.trunc(4 * level),
    "solarize": lambda level, sign: np.trunc(256 * level),
    "solarize_add": lambda level, sign: np.trunc(110 * level),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), lambda level, sign: 0.1 + 1.8 * level),
    **dict.fromkeys(("shear_x", "shear_y"), lambda level, sign: 0.3 * level * sign),
    **dict.fromkeys(("translate_x", "translate_y"), lambda level, sign: 0.45 * level * sign),
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
        """Draw the two operations (n, 2; indices in `RANDAUGMENT`) and their numbers (n, 2, 6)."""
        operation = rng.integers(len(OPERATIONS), size=(n, 2))
        level = rng.normal(self.level, self.deviation, (n, 2)).clip(0, 10) / 10
        sign, cubic = rng.choice([-1, 1], (n, 2)), rng.random((n, 2)) < 0.5
        kind, rows = np.zeros((n, 2), dtype=np.int64), np.zeros((n, 2, 6))
        for i, (name, magnitude) in enumerate(OPERATIONS.items()):
            chosen = operation == i
            kind[chosen] = _kind(name, cubic[chosen])
            rows[chosen] = numbers(name, magnitude(level[chosen], sign[chosen]), size)
        kind[rng.random((n, 2)) >= self.probability] = 0
        return {"kind": kind, "numbers": rows}

    def __call__(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the first operations, then the second ones."""
        return in_turn(images, tables, tuple(RANDAUGMENT.values()))


def _kind(name: str, cubic: np.ndarray) -> np.ndarray | int:
    index = list(RANDAUGMENT).index
    if name in MOVES:
        return np.where(cubic, index("cubic"), index("linear"))
    return index("solarize" if name == "invert" else name)
