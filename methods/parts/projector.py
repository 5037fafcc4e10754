"""Projection heads of the contrastive methods."""

from __future__ import annotations

from torch import Tensor, nn

from methods.parts.contrast import unit


class Projector(nn.Module):
    """Linear, batch norm, ReLU, linear, then unit length, in float32 (BCL, BCCL and ProCo on CIFAR).

    SupCon's own has no batch norm.
    """

    def __init__(self, features: int, hidden: int = 512, dim: int = 128, *, batch_norm: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            nn.BatchNorm1d(hidden) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return unit vectors (N, dim) of features (N, D)."""
        return unit(self.layers(features))
