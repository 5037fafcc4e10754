"""SHIKE: self-heterogeneous integration with knowledge excavation (Jin et al., CVPR 2023)."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from methods.logit_adjustment import log_class_prior
from methods.parts.experts import PerExpert
from methods.parts.fused_experts import FusedExperts
from methods.parts.heads import CosineHead


class FusedEnsemble(Method):
    """Experts on features of different depths, scored by the mean of their scaled cosines.

    Args:
        experts: how many.
        scale: of the experts' cosines.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        experts: int = 3,
        scale: float = 30.0,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.experts = experts
        self.backbone = FusedExperts(make_backbone, experts)
        features = self.backbone.num_features
        self.head = PerExpert(CosineHead(features, self.num_classes, scale) for _ in range(experts))

    def logits(self, images: Tensor) -> Tensor:
        """Return every expert's logits, (K, B, C)."""
        return self.head(self.backbone(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).mean(dim=0)


@register("shike_stage_1", golden=True, version=2)
class SHIKE(FusedEnsemble):
    """Experts on features of different depths that distil each other and suppress hard negatives.

    The authors' network has convolutions in its shortcuts (1.28 million parameters), ours the backbone's.

    Args:
        hardest_negative: weight of the hardest-negative suppression; set for 100 classes, it weighs more
            with fewer, as the term is a mean over classes.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        hardest_negative: float = 10.0,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.hardest_negative = hardest_negative

    def mean_over_images(self) -> bool:
        return True

    def loss(self, batch: Batch) -> Tensor:
        return shike_loss(self.logits(batch.images), batch.labels, self.hardest_negative)


@register("shike", golden=True)
class SHIKERetrained(FusedEnsemble):
    """The second stage: new classifiers on the frozen experts, by balanced softmax.

    quirk: the batches are ordinary ones, and batch norm goes on adapting to them, as in the authors' code.
    """

    log_prior: Tensor
    needs_parent = True
    usual_parent = "shike_stage_1"
    scores = "balanced"

    def __init__(self, make_backbone: MakeBackbone, class_counts: np.ndarray, **common: Any) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.register_buffer("log_prior", log_class_prior(self.class_counts))

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, SHIKE) or len(parent.head.each) != len(self.head.each):
            raise BenchError(
                f"shike goes on with shike_stage_1 and as many experts ({len(self.head.each)}), not with "
                f"this {type(parent).__name__}"
            )
        self.backbone.load_state_dict(parent.backbone.state_dict())
        self.backbone.requires_grad_(False)

    def mean_over_images(self) -> bool:
        return True

    def loss(self, batch: Batch) -> Tensor:
        return cross_entropies(self.logits(batch.images) + self.log_prior, batch.labels)


def shike_loss(logits: Tensor, labels: Tensor, hardest_negative: float) -> Tensor:
    """Return sum_k CE(z_k) + w sum_k HNS_k + sum_{i != j} KL(p_j || p_i) of logits (K, B, C).

    quirk: both divergences are means over all B * C elements, so C times smaller than the paper's.
    """
    log_p = logits.log_softmax(dim=2)
    pairs = permutations(range(len(logits)), 2)
    divergences = [F.kl_div(log_p[i], log_p[j], reduction="sum", log_target=True) for i, j in pairs]
    mutual = torch.stack(divergences).sum() / log_p[0].numel()
    suppressed = hardest_negative_suppression(logits, labels)
    return cross_entropies(logits, labels) + hardest_negative * suppressed + mutual


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the experts' cross-entropies."""
    return torch.stack([F.cross_entropy(z, labels) for z in logits]).sum()


def hardest_negative_suppression(logits: Tensor, labels: Tensor) -> Tensor:
    """Return sum_k KL(q || p'_k) over the classes but the label, mean over B * C elements.

    q is the softmax of the experts' greatest logits, for the hardest negative of their mean.
    quirk: the label does not leave the softmaxes: its logit is 0 in q and -30 in p'. q has a gradient.
    """
    is_label = F.one_hot(labels, logits.shape[2]).bool()
    mean = logits.mean(dim=0).masked_fill(is_label, -30.0)
    is_hardest = F.one_hot(mean.argmax(dim=1), logits.shape[2]).bool()
    greatest = logits.amax(dim=0).masked_fill(is_label, 0.0)
    target = torch.where(is_hardest, mean, greatest).log_softmax(dim=1)
    own = logits.masked_fill(is_label, -30.0).log_softmax(dim=2)
    return F.kl_div(own, target.expand_as(own), reduction="sum", log_target=True) / target.numel()
