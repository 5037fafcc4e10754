"""LT-Soups: weights averaged over fine-tunings on ever longer tails (Aminbeidokhti et al., NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.method import MakeBackbone, Method, View
from bench.registry import register
from methods.lift_plus import LIFTPlus


@register("lt_soups_merge", golden=True, tuner="full", pretrained=True)
class Soup(LIFTPlus):
    """The weights of several full fine-tunings, averaged one after another; nothing is trained.

    Its parents are "clip_full_fine_tuning" on subsamples, from balanced classes to the whole tail (`protocol:
    {subsample: 1}`, 2, 4, ...). The authors fine-tune twice for each and take the mean of the two, each the
    best of five evaluations of a weight average (0.99); here it is the last weights of one.

    Args:
        share: weight of each next fine-tuning in the running average.
    """

    needs_parent = True
    several_parents = True
    usual_parent = "clip_full_fine_tuning"
    trains = False

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, share: float = 0.7, **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.share = share

    def mean_over_images(self) -> bool:
        return False

    def start_from_all(self, parents: Sequence[Method]) -> None:
        start = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        members = [parent.state_dict() for parent in parents]
        kept = [name for name in start if name.startswith(("backbone.", "head."))]
        if any(
            name not in member or member[name].shape != start[name].shape
            for member in members
            for name in kept
        ):
            raise BenchError(
                "lt_soups_merge averages networks of one kind; name parents clip_full_fine_tuning that "
                "differ only in protocol.subsample"
            )
        start |= {name: members[0][name] for name in kept if name.startswith("head.")}
        self.load_state_dict(start | merged({name: start[name] for name in kept}, members, self.share))

    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Keep the merged classifier."""


@register("lt_soups", tuner="none", pretrained=True)
class LTSoups(LIFTPlus):
    """The classifier of a soup, trained further on all images with adjusted logits.

    The authors' card: AdamW at lr 3e-5 with a weight decay of 1e-2, ten epochs for each subsample.
    """

    needs_parent = True
    usual_parent = "lt_soups_merge"
    views = (View("resized_crop_flip"),)
    mean_over_images = LIFTPlus.mean_over_images

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, LIFTPlus):
            raise BenchError(f"lt_soups starts from lt_soups_merge, not from {type(parent).__name__}")
        self.backbone.load_state_dict(parent.backbone.state_dict())
        self.head.load_state_dict(parent.head.state_dict())

    def before_training(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Keep the soup's classifier."""


@torch.no_grad()
def merged(
    start: Mapping[str, Tensor], members: Iterable[Mapping[str, Tensor]], share: float
) -> dict[str, Tensor]:
    """Return S after S <- (1 - share) S + share theta of each member in turn, from `start`."""
    soup = dict(start)
    for member in members:
        soup = {name: torch.lerp(tensor, member[name].to(tensor), share) for name, tensor in soup.items()}
    return soup
