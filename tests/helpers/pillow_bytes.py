"""Photographs for the augmentation, and the comparison with Pillow's bytes."""

from __future__ import annotations

import runpy
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from project import ROOT
from torch import Tensor

photographs = runpy.run_path(str(ROOT / "benchmarks/augment.py"))["photographs"]


def same(ours: Tensor, theirs: Iterable[Image.Image]) -> None:
    """Fail unless the batch has the bytes of the images."""
    expected = np.stack([np.asarray(image.convert("RGB")) for image in theirs])
    assert ours.dtype == torch.uint8
    np.testing.assert_array_equal(ours.permute(0, 2, 3, 1).numpy(), expected)


def both(photos: np.ndarray) -> tuple[Tensor, list[Image.Image]]:
    return torch.tensor(photos).permute(0, 3, 1, 2).contiguous(), [*map(Image.fromarray, photos)]
