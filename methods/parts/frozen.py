"""The second of two stages: a classifier on the frozen backbone of a trained parent."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from torch import nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import MakeBackbone, Method
from methods.parts.classifier import Classifier

BatchNorm = Literal["train", "eval"]


class FrozenBackbone(Classifier):
    """Turn a classifier into one that trains on a parent's frozen backbone.

    Put it before the classifier: `class CRT(FrozenBackbone, CrossEntropy)`.

    Args:
        batch_norm: of the frozen backbone; "train" updates its statistics on the stage's batches as in the
            authors' code (quirk: the papers call the backbone fixed), "eval" keeps them.
    """

    #: Whether it trains the parent's linear classifier further, instead of a new one.
    keeps_head: ClassVar[bool] = False
    needs_parent = True
    scores = "balanced"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        batch_norm: BatchNorm = "train",
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.batch_norm = batch_norm

    def start_from(self, parent: Method) -> None:
        load_backbone(self.backbone, parent)
        self.backbone.requires_grad_(False)
        if self.keeps_head:
            assert isinstance(self.head, nn.Linear)
            load_linear(self.head, parent)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.train(mode and self.batch_norm == "train")
        return self


def load_backbone(backbone: Backbone, parent: Method) -> None:
    """Copy a parent's backbone.

    Raises:
        BenchError: the parent has none, several, or one of another kind.
    """
    trained = getattr(parent, "backbone", None)
    if trained is None:
        raise BenchError(f"{type(parent).__name__} has no single backbone to build on; start from ce, say")
    try:
        backbone.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise BenchError(
            f"the backbone of {type(parent).__name__} is not the one its child builds; name the child of "
            "its kind, with the parent's backbone, experts and width"
        ) from error


def load_linear(linear: nn.Linear, parent: Method) -> None:
    """Copy a parent's linear classifier.

    Raises:
        BenchError: the parent's classifier is not linear.
    """
    trained = getattr(parent, "head", None)
    if not isinstance(trained, nn.Linear):
        raise BenchError(
            f"{type(parent).__name__} has no linear classifier to start from; start from a method that "
            "has one, such as ce"
        )
    linear.load_state_dict(trained.state_dict())
