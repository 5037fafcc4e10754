"""Policies: the papers' augmentations by name, as geometry operations followed by colour operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from torch import Tensor

from bench.data.augment.automatic import AutoAugment, RandAugment
from bench.data.augment.op import Op
from bench.data.augment.operations import (
    Blur,
    Crop,
    Cutout,
    Flip,
    Grayscale,
    Jitter,
    MinimalCrop,
    ResizedCrop,
    Rotation,
)
from bench.errors import BenchError, did_you_mean


@dataclass(frozen=True)
class Policy:
    """An augmentation: `geometry` moves pixels, `colour` is everything after it.

    A patch of a view (DSCL) is cut between the two.
    """

    geometry_ops: tuple[Op, ...] = ()
    colour_ops: tuple[Op, ...] = ()

    def draw(self, rng: np.random.Generator, n: int, image_size: int) -> dict[str, np.ndarray]:
        """Draw all random numbers of `n` square images: named arrays of n rows each."""
        return {
            f"{_name(op)}.{key}": rows
            for op in (*self.geometry_ops, *self.colour_ops)
            for key, rows in op.draw(rng, n, image_size).items()
        }

    def at(self, epoch: int, epochs: int) -> Self:
        """Return the policy of an epoch, counted from 0 of `epochs`."""
        ops = tuple(op.at(epoch, epochs) if isinstance(op, MinimalCrop) else op for op in self.geometry_ops)
        return replace(self, geometry_ops=ops)

    def geometry(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the geometry operations to uint8 `images` (B, 3, H, W) with the tables' B rows."""
        return _run(self.geometry_ops, images, tables)

    def colour(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the colour operations."""
        return _run(self.colour_ops, images, tables)

    def apply(self, images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Apply the whole policy; `images` is not changed, and returned itself if there is nothing to do."""
        return self.colour(self.geometry(images, tables), tables)


def _name(op: Op) -> str:
    return type(op).__name__.lower()


def _run(ops: tuple[Op, ...], images: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
    for op in ops:
        start = f"{_name(op)}."
        own = {k.removeprefix(start): rows for k, rows in tables.items() if k.startswith(start)}
        images = op(images, own)
    return images


_CROP = (Crop(), Flip())
_RESIZED = (ResizedCrop(), Flip())
_LARGER = (ResizedCrop(scale=(0.2, 1.0)), Flip())
_SIM = (Jitter(), Grayscale())

#: By name; colour operations are in the papers' order. "resized_crop_flip" is for iNaturalist 2018 and
#: "resized_crop_flip_jitter" for ImageNet-LT (Kang et al., 2020), "supcon" and "supcon_linear" are SupCon's
#: two stages on CIFAR, "minimal_crop" is LIFT+'s, "crop_flip_simclr_blur" SADE's for test images, "randcls"
#: and "randstack" are BCL's views, "dscl_*" those of DSCL: its query, its key, and its patches after
#: cropping, blurred by the authors' share of the side (of 224 pixels, and of 64 for a patch); "large" ones
#: are crops of at least a fifth of the area, for small images.
POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "crop_flip": Policy(_CROP),
    "crop_flip_cutout": Policy(_CROP, (Cutout(),)),
    "crop_flip_rotate": Policy((*_CROP, Rotation())),
    "autoaugment": Policy(_CROP, (AutoAugment(),)),
    "autoaugment_cutout": Policy(_CROP, (AutoAugment(), Cutout())),
    "resized_crop_flip": Policy(_RESIZED),
    "resized_crop_flip_jitter": Policy(_RESIZED, (Jitter(hue=0, probability=1),)),
    "minimal_crop": Policy((MinimalCrop(),)),
    "crop_flip_simclr_blur": Policy(_CROP, (*_SIM, Blur(probability=0.2))),
    "simclr": Policy(_RESIZED, _SIM),
    "simclr_blur": Policy(_LARGER, (*_SIM, Blur())),
    "supcon": Policy(_LARGER, _SIM),
    "supcon_linear": Policy(_LARGER),
    "randcls": Policy(_RESIZED, (Jitter(hue=0, probability=1), RandAugment())),
    "randstack": Policy(_RESIZED, (*_SIM, RandAugment())),
    "dscl_query": Policy(_RESIZED, (*_SIM, Blur(side=224))),
    "dscl_key": Policy(_RESIZED, (Jitter(hue=0, probability=1),)),
    "dscl_query_large": Policy(_LARGER, (*_SIM, Blur(side=224))),
    "dscl_key_large": Policy(_LARGER, (Jitter(hue=0, probability=1),)),
    "dscl_patch": Policy((Flip(),), (*_SIM, Blur(side=64))),
}


def policy(name: str) -> Policy:
    """Return the policy of a name; the error about an unknown name has the nearest one."""
    if name not in POLICIES:
        raise BenchError(f"unknown augmentation {name!r}{did_you_mean(name, POLICIES)}")
    return POLICIES[name]
