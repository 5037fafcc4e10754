"""cRT: classifier re-training on balanced batches (Kang et al., ICLR 2020, section 4)."""

from __future__ import annotations

from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.parts.frozen import FrozenBackbone


@register("crt")
class CRT(FrozenBackbone, CrossEntropy):
    """A new linear classifier on a trained, frozen backbone, from class-balanced batches."""

    mean_over_images = CrossEntropy.mean_over_images

    def sampler(self, epoch: int, epochs: int) -> str:
        return "class_balanced"
