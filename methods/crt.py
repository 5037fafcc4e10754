"""cRT: classifier re-training on balanced batches (Kang et al., ICLR 2020, section 4.1)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from bench.errors import BenchError
from bench.method import MakeBackbone, Method
from bench.registry import register
from methods.cross_entropy import CrossEntropy


@register(
    "crt",
    title="cRT",
    family="two-stage",
    venue="ICLR",
    year=2020,
    paper="https://arxiv.org/abs/1910.09217",
)
class CRT(CrossEntropy):
    """A new linear classifier on a trained, frozen backbone, from class-balanced batches.

    Args:
        batch_norm: of the frozen backbone; "train" updates its statistics on the balanced batches as
            the authors' code does (quirk: the paper calls the backbone fixed), "eval" leaves them.
    """

    needs_parent = True
    scores = "balanced"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        batch_norm: Literal["train", "eval"] = "train",
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.batch_norm = batch_norm

    def start_from(self, parent: Method) -> None:
        trained = getattr(parent, "backbone", None)
        if trained is None:
            raise BenchError(f"{type(parent).__name__} has no single backbone to re-train on")
        try:
            self.backbone.load_state_dict(trained.state_dict())
        except RuntimeError as error:
            raise BenchError(
                f"the backbone of {type(parent).__name__} is not the one {type(self).__name__} builds; name "
                "the child of its kind, with the parent's backbone, experts and width"
            ) from error
        self.backbone.requires_grad_(False)

    def sampler(self, epoch: int, epochs: int) -> str:
        return "class_balanced"

    def train(self, mode: bool = True) -> CRT:
        super().train(mode)
        self.backbone.train(mode and self.batch_norm == "train")
        return self
