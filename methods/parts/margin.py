"""Heads of the face-recognition losses: a margin at the label in training, none at test.

ArcFace (Deng et al., CVPR 2019), CosFace (Wang et al., CVPR 2018) = AM-Softmax (Wang et al., 2018),
SphereFace (Liu et al., CVPR 2017).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.method import Clock

MarginName = Literal["arcface", "cosface", "sphereface"]


class MarginHead(nn.Module):
    """A bias-free head on unit class vectors (C, D), Xavier-uniform as in arcface-pytorch."""

    def __init__(self, features: int, classes: int, margin: float, scale: float) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))

    def forward(self, features: Tensor) -> Tensor:
        """Return test logits (B, C), without a margin."""
        return self.lengths(features) * self.cosines(features)

    def margin_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return training logits (B, C), with the margin at the label."""
        cosines = self.cosines(features)
        target = self.at_label(cosines.gather(1, labels[:, None]))
        is_label = F.one_hot(labels, cosines.shape[1]).bool()
        return self.lengths(features) * torch.where(is_label, target, cosines)

    def lengths(self, features: Tensor) -> Tensor | float:
        """Return the factor of the cosines: the scale, or the features' lengths."""
        return self.scale

    def cosines(self, features: Tensor) -> Tensor:
        """Return cosines (B, C) of features to the class vectors."""
        return F.linear(F.normalize(features), F.normalize(self.weight))

    def at_label(self, cosines: Tensor) -> Tensor:
        """Return what replaces the label's cosine (B, 1)."""
        raise NotImplementedError

    def advance(self, clock: Clock) -> None:
        """Anneal the margin before a step, if it is annealed."""


class CosFaceHead(MarginHead):
    """cos(theta) - m at the label."""

    def at_label(self, cosines: Tensor) -> Tensor:
        return cosines - self.margin


class ArcFaceHead(MarginHead):
    """cos(theta + m) at the label, and cos(theta) - m sin(m) once theta + m passes pi."""

    def at_label(self, cosines: Tensor) -> Tensor:
        return arcface_target(cosines, self.margin)


def arcface_target(cosines: Tensor, margin: float) -> Tensor:
    """Return cos(theta + m) by the addition theorem; acos would have no gradient at 0 and pi."""
    sines = (1 - cosines**2).clamp(min=1e-12).sqrt()
    turned = cosines * math.cos(margin) - sines * math.sin(margin)
    fallback = cosines - margin * math.sin(math.pi - margin)
    return torch.where(cosines > math.cos(math.pi - margin), turned, fallback)


class SphereFaceHead(MarginHead):
    """psi(theta) blended in by 1 / (1 + lambda), lambda annealed per step; logits scale with ||f||.

    lambda = max(5, 1000 / (1 + 0.12 it)) with `it` from 1 (arcface-pytorch); instead of `scale` the features'
    length is used, at test as in training.
    """

    annealed: Tensor

    def __init__(self, features: int, classes: int, margin: float, scale: float) -> None:
        super().__init__(features, classes, margin, scale)
        self.register_buffer("annealed", torch.tensor(sphereface_lambda(1)))

    def lengths(self, features: Tensor) -> Tensor:
        return features.norm(dim=1, keepdim=True)

    def at_label(self, cosines: Tensor) -> Tensor:
        return cosines + (sphereface_psi(cosines, int(self.margin)) - cosines) / (1 + self.annealed)

    def advance(self, clock: Clock) -> None:
        self.annealed.fill_(sphereface_lambda(clock.step + 1))


def sphereface_lambda(iteration: int) -> float:
    """Return the weight of the plain cosine at an iteration (from 1)."""
    return max(5.0, 1000 / (1 + 0.12 * iteration))


def sphereface_psi(cosines: Tensor, margin: int) -> Tensor:
    """Return psi(theta) = (-1)^k cos(m theta) - 2k with k = floor(m theta / pi), constant in the gradient.

    cos(m theta) is the Chebyshev polynomial T_m of the cosine.
    """
    before, chebyshev = torch.ones_like(cosines), cosines
    for _ in range(margin - 1):
        before, chebyshev = chebyshev, 2 * cosines * chebyshev - before
    angles = cosines.detach().clamp(-1, 1).acos()
    k = (margin * angles / math.pi).floor()
    return (1 - 2 * (k % 2)) * chebyshev - 2 * k


#: Margin heads by name, with the margins used for classification at the scale below.
MARGIN_HEADS: dict[MarginName, type[MarginHead]] = {
    "arcface": ArcFaceHead,
    "cosface": CosFaceHead,
    "sphereface": SphereFaceHead,
}
DEFAULT_MARGINS: dict[MarginName, float] = {"arcface": 0.5, "cosface": 0.4, "sphereface": 4.0}
DEFAULT_SCALE = 30.0
