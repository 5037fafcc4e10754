"""Pooling boxes from a feature map, with shapes that do not depend on the boxes."""

from __future__ import annotations

import torch
from torch import Tensor


def roi_mean(feature_map: Tensor, boxes: Tensor) -> Tensor:
    """Average a box of each image's feature map, as the mean over the 2x2 bins of ROIAlign.

    It equals torchvision's `roi_align(map, boxes, (2, 2)).mean((2, 3))`. Sampling a box on a grid is a
    product of two axes, so the mean of its bilinear samples is a weighted sum of rows and columns.
    quirk: cell i of the map lies at coordinate i, half a cell off (`aligned=False`), as in DSCL's code.

    Args:
        feature_map: (*lead, B, D, h, w).
        boxes: (B, 4) as x0, y0, x1, y1 in shares of the side.

    Returns:
        (*lead, B, D).
    """
    h, w = feature_map.shape[-2:]
    columns = _sample_weights(boxes[:, 0], boxes[:, 2], w).to(feature_map)
    rows = _sample_weights(boxes[:, 1], boxes[:, 3], h).to(feature_map)
    return torch.einsum("...bdhw,bh,bw->...bd", feature_map, rows, columns)


def _sample_weights(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return what each cell of an axis contributes to the mean of a box's samples, (B, cells).

    ROIAlign takes ceil(bin size) samples in each of the two bins, and a box spans at least one cell.
    """
    span = ((high - low) * cells).clamp(min=1)
    samples = 2 * (span / 2).ceil()
    index = torch.arange(2 * -(-cells // 2), device=low.device)
    at = low[:, None] * cells + (index + 0.5) * (span / samples)[:, None]
    cell = torch.arange(cells, device=low.device)
    share = (1 - (at.clamp(0, cells - 1)[:, :, None] - cell).abs()).clamp(min=0)
    used = index < samples[:, None]
    return (share * used[:, :, None]).sum(dim=1) / samples[:, None]
