"""CUDA: a curriculum of augmentation, with a strength for each class (Ahn et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.augment.distortion import HIGHEST
from bench.method import Clock, MakeBackbone, Method, View
from bench.registry import register
from methods.cross_entropy import CrossEntropy
from methods.ldam import LDAM
from methods.logit_adjustment import LogitAdjustment


class Curriculum(Method):
    """Distort each class's images as far as the network still recognises them.

    Put it before the classifier: `class CUDALDAM(Curriculum, LDAM)`. Before every epoch the network
    classifies newly distorted training images of each class at every level up to the class's own. If enough
    are right at each level, the class's level rises by one, else it falls by one. In training every other
    image is distorted.

    Args:
        trials: images at level 0; level s has (s + 1) times as many.
        accept: share of right answers to exceed at every level.
    """

    views = (View(strength_of="levels", chance=0.5),)
    levels: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        trials: int = 10,
        accept: float = 0.6,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.trials, self.accept = trials, accept
        self.register_buffer("levels", torch.zeros(self.num_classes, dtype=torch.int64))

    def probe(self, clock: Clock) -> tuple[np.ndarray, np.ndarray]:
        shown = self.class_counts.cpu().numpy().nonzero()[0]
        own = self.levels.cpu().numpy()[shown]
        pairs = [
            (label, level)
            for label, highest in zip(shown.tolist(), own.tolist(), strict=True)
            for level in range(highest + 1)
            for _ in range(self.trials * (level + 1))
        ]
        classes, strengths = np.array(pairs, dtype=np.int64).T
        return classes, strengths

    def read_probe(
        self, clock: Clock, images: Iterable[Tensor], classes: np.ndarray, strengths: np.ndarray
    ) -> None:
        answers = torch.cat([self(some).argmax(dim=1) for some in images])
        right = (answers.cpu().numpy() == classes).astype(np.int64)
        shape = (self.num_classes, HIGHEST + 1)
        trials, correct = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        np.add.at(trials, (classes, strengths), 1)
        np.add.at(correct, (classes, strengths), right)
        self.levels.copy_(
            torch.from_numpy(next_levels(self.levels.cpu().numpy(), correct, trials, self.accept))
        )


@register("ce_cuda", golden=True)
@register("ce_drw_cuda", reweight_from=0.8, golden=True)
class CUDACrossEntropy(Curriculum, CrossEntropy):
    """Cross-entropy of images distorted as far as their class allows."""

    mean_over_images = CrossEntropy.mean_over_images


@register("ldam_drw_cuda", reweight_from=0.8, golden=True)
class CUDALDAM(Curriculum, LDAM):
    """LDAM on images distorted as far as their class allows."""

    mean_over_images = LDAM.mean_over_images


@register("balanced_softmax_cuda", golden=True)
class CUDABalancedSoftmax(Curriculum, LogitAdjustment):
    """Balanced softmax on images distorted as far as their class allows."""

    mean_over_images = LogitAdjustment.mean_over_images


def next_levels(levels: np.ndarray, correct: np.ndarray, trials: np.ndarray, accept: float) -> np.ndarray:
    """Return levels (C,), one higher if at every tried level more than `accept` are right, else one lower.

    `trials` and `correct` are (C, 11), by class and level; shares are in float32, so that 6 of 10 do not
    exceed 0.6. A class without trials keeps its level.
    """
    shown = trials > 0
    share = correct.astype(np.float32) / np.maximum(trials, 1).astype(np.float32)
    passed = ((share > np.float32(accept)) | ~shown).all(axis=1)
    moved = (levels + np.where(passed, 1, -1)).clip(0, HIGHEST)
    return np.where(shown.any(axis=1), moved, levels)
