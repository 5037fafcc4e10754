"""Class prototypes: one vector per class in the projection space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.contrast import count_of_class


class RunningPrototypes(nn.Module):
    """Moving averages (C, D) of each class's projections, without gradient."""

    means: Tensor

    def __init__(self, classes: int, dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(classes, dim))

    @torch.no_grad()
    def follow(self, projections: Tensor, labels: Tensor) -> None:
        """Update the means of the present classes by projections (N, D)."""
        counts = count_of_class(labels, len(self.means))[:, None]
        sums = torch.zeros_like(self.means).index_add(0, labels, projections.detach())
        moved = self.momentum * self.means + (1 - self.momentum) * sums / counts.clamp(min=1)
        self.means.copy_(torch.where(counts > 0, moved, self.means))

    def cosines(self, projections: Tensor) -> Tensor:
        """Return cosines (N, C) of unit projections; 0 for a class without any yet."""
        return projections @ F.normalize(self.means, dim=1).T
