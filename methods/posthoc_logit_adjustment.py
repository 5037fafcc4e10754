"""Post-hoc logit adjustment of a trained classifier (Menon et al., ICLR 2021, eq. 9)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bench.errors import BenchError
from bench.method import MakeBackbone, Method
from bench.registry import register
from methods.parts.weights import log_class_prior


@register("posthoc_logit_adjustment", golden=True)
class PosthocLogitAdjustment(Method):
    """The parent's logits minus tau times the log prior; nothing is trained.

    Args:
        tau: strength; the paper tunes it on held-out data and defaults to 1.
    """

    log_prior: Tensor
    scores = "balanced"
    needs_parent = True
    trains = False

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, tau: float = 1.0) -> None:
        super().__init__(make_backbone, class_counts)
        self.tau = tau
        self.register_buffer("log_prior", log_class_prior(self.class_counts))

    def start_from(self, parent: Method) -> None:
        if parent.scores != "train_prior":
            raise BenchError(
                f"the parent's scores are {parent.scores!r}: adjusting them again would count the prior "
                "twice; start from a method whose scores follow the training prior, such as ce"
            )
        self.parent = parent

    def forward(self, images: Tensor) -> Tensor:
        return self.parent(images) - self.tau * self.log_prior
