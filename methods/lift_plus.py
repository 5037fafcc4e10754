"""LIFT+ (Shi et al., 2025) and its baselines: linear probe, full fine-tuning, visual prompts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import MakeBackbone, View
from bench.registry import register
from methods.lift import LIFT, frozen_vit, insert_adapters
from methods.parts.prompts import insert_prompts, prompt_count

Tuner = Literal["adaptformer", "prompts", "full", "none"]


@register("lift_plus", tuner="adaptformer", pretrained=True)
@register("lift_plus_tte", tuner="adaptformer", expand=24, pretrained=True)
@register("clip_linear_probe", tuner="none", pretrained=True)
@register("clip_full_fine_tuning", tuner="full", pretrained=True)
@register("clip_prompt_tuning", tuner="prompts", pretrained=True)
class LIFTPlus(LIFT):
    """LIFT in half its epochs, on crops that grow to the whole image, optionally from text features.

    The authors' rates are 0.02 (full fine-tuning 0.001), without a warm-up, with batches of 128 and a weight
    decay of 5e-4. With `tuner: none`, `epochs: 0` and text features it is the zero-shot classifier, except
    for CLIP's scale. CoOp, which learns the words of the prompt, is not implemented: it needs CLIP's text
    encoder, which timm does not have.

    Args:
        tuner: adapters beside every MLP, prompts in every block, all weights, or nothing.
        text_features: a .npy file with one vector per class (C, D), in the space of the backbone's features,
            from which the classifier starts; computed elsewhere by the model's text encoder.
    """

    views = (View("minimal_crop"),)

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        tuner: Tuner = "adaptformer",
        text_features: str | None = None,
        **common: Any,
    ) -> None:
        self.tuner, self.text_features = tuner, text_features
        super().__init__(make_backbone, class_counts, **common)

    def tune(self, backbone: Backbone) -> None:
        if self.tuner == "adaptformer":
            insert_adapters(backbone, self.num_classes)
            return
        vit = frozen_vit(backbone)
        if self.tuner == "prompts":
            insert_prompts(vit, prompt_count(self.num_classes, len(vit.blocks)))
        elif self.tuner == "full":
            backbone.requires_grad_(True)

    def mean_over_images(self) -> bool:
        return self.unweighted()

    @torch.no_grad()
    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        if self.text_features is None:
            super().before_training(training_set)
            return
        self.head.weight.copy_(F.normalize(read_vectors(Path(self.text_features), self.head.weight), dim=1))


def read_vectors(file: Path, like: Tensor) -> Tensor:
    """Read vectors (C, D) from a .npy file, with the shape, type and device of `like`."""
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise BenchError(f"{file}: text_features: {reason}; name a .npy file, or leave it out") from error
    if vectors.shape != tuple(like.shape) or vectors.dtype.kind != "f":
        raise BenchError(
            f"{file}: text_features: {vectors.dtype} of shape {vectors.shape}; it needs numbers of shape "
            f"{tuple(like.shape)}, a vector per class of the backbone's features"
        )
    return torch.from_numpy(vectors).to(like)
