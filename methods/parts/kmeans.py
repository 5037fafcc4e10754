"""k-means of many point sets at once, as in kmeans-gpu for each class."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def kmeans(
    points: Tensor, valid: Tensor, start: Tensor, iterations: int = 100, tolerance: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Cluster the `valid` (S, N) points (S, N, D) from `start` (S, K, D); return centers and labels.

    Distances are Euclidean; a set stops when its squared shift is within `tolerance`; a cluster that loses
    all its points becomes zero. The returned centers are computed from the labels (S, N).
    """
    centers, moving = start.clone(), valid.any(dim=1)
    labels = torch.zeros(points.shape[:2], dtype=torch.int64, device=points.device)
    for _ in range(iterations):
        nearest = torch.cdist(points, centers).argmin(dim=2)
        labels = torch.where(moving[:, None], nearest, labels)
        member = torch.nn.functional.one_hot(labels, centers.shape[1]).to(points) * valid[:, :, None]
        sizes = member.sum(dim=1)[:, :, None]
        moved = torch.einsum("snk,snd->skd", member, points) / sizes.clamp(min=1)
        moved = torch.where(moving[:, None, None], moved, centers)
        shift = (moved - centers).square().sum(dim=(1, 2))
        centers, moving = moved, moving & (shift > tolerance)
        if not moving.any():
            break
    return centers, labels
