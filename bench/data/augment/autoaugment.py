"""AutoAugment's CIFAR-10 policy (Cubuk et al., 2019) in the dialect of the long-tail repositories.

They share one copy of it, used for CIFAR-100 too, which is not torchvision's: ten magnitudes for each
operation, rotations to one side only, nearest pixels but for shear, and gray (128) outside.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bench.data.augment.affine import nearest, smooth
from bench.data.augment.op import How, by_kind
from bench.data.augment.operations import COLOURS, numbers

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

#: What magnitudes 0 and 9 mean. Inverting is solarizing from level 0 on.
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

#: What is done, in the order of the table `kind`.
KINDS: dict[str, How] = {
    "keep": None,
    "move": lambda some, row: nearest(some, row, _GRAY),
    "shear_y": lambda some, row: smooth(some, row, _GRAY, across=1, down=4),
    **{name: how for name, how in COLOURS.items() if name in _RANGES},
}
_KIND_OF = {"invert": "solarize"} | dict.fromkeys(("rotate", "translate_x", "translate_y"), "move")


@dataclass(frozen=True)
class AutoAugment:
    """Apply one of 25 sub-policies: two operations, each with a probability of its own."""

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, np.ndarray]:
        """Draw the two operations (n, 2; a place in `KINDS`) and their numbers (n, 2, 6)."""
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
        for turn in range(2):
            kind, rows = tables["kind"][:, turn], tables["numbers"][:, turn]
            images = by_kind(images, kind, tuple(KINDS.values()), rows)
        return images


@functools.cache
def _tables(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probability and kind (25, 2), and the numbers (25, 2, 2, 6) of either sign."""
    probability = np.array([[p for _, p, _ in pair] for pair in SUBPOLICIES])
    place = list(KINDS).index
    kind = np.array([[place(_KIND_OF.get(name, name)) for name, _, _ in p] for p in SUBPOLICIES])
    rows = [
        [[_numbers(name, m, sign, size) for sign in (-1, 1)] for name, _, m in pair] for pair in SUBPOLICIES
    ]
    return probability, kind, np.array(rows)


def _numbers(name: str, magnitude: int, sign: int, size: int) -> np.ndarray:
    value = np.linspace(*_RANGES[name], 10)[magnitude]
    value = value * sign if name in _SIGNED else value
    value = np.round(value) if name == "posterize" else value
    return numbers(name, 1 + value if name in _BLENDS else value, size)
