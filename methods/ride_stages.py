"""RIDE's other stages (Wang et al., ICLR 2021): distillation from more experts, and routing to fewer."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from methods.ldam import LDAM
from methods.parts.experts import ExpertEnsemble
from methods.parts.teacher import Teacher
from methods.ride import RIDE


@register("ride_distill", reweight_from=0.8, diversity=0.2)
class RIDEDistilled(RIDE):
    """RIDE with distillation from a trained RIDE, usually of six experts.

    The parent is the teacher (`params: {experts: 6}`); its logits are the mean of its experts. The authors'
    `diversity` is 0.2 here, and 0.45 for the teacher.

    Args:
        distil_weight: of the divergence from the teacher.
        distil_temperature: of both softmaxes.
    """

    needs_parent = True
    usual_parent = "ride"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        distil_weight: float = 1.0,
        distil_temperature: float = 1.5,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.distil_weight, self.distil_temperature = distil_weight, distil_temperature
        self.teacher = Teacher()

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, RIDE):
            raise BenchError(f"ride_distill learns from a ride, not from {type(parent).__name__}")
        self.teacher.take(parent)

    def loss(self, batch: Batch) -> Tensor:
        outputs = self.training_outputs(self.backbone(batch.images), batch.labels)
        own = self.criterion(outputs, batch.labels)
        learnt = divergence(
            self.teacher(batch.images), self.scale * outputs.mean(dim=0), self.distil_temperature
        )
        # quirk: the authors' loop adds both terms, which are sums over the experts, once for each expert
        return self.experts * (own + self.distil_weight * learnt)


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), a mean over the batch."""
    target = F.softmax(teacher / temperature, dim=1)
    own = F.log_softmax(student / temperature, dim=1)
    return temperature**2 * F.kl_div(own, target, reduction="batchmean")


@register("ride_routed")
class RIDERouted(ExpertEnsemble, LDAM):
    """A trained RIDE that uses its next expert only where its router predicts that this helps.

    The experts are frozen; one router for each expert except the last is learnt, from class-balanced batches.
    Here every expert is computed for every image, and unused ones are left out of the mean: it shows the
    accuracy of routing, not the saved time. The authors' stage has 5 epochs with batches of 512 at lr 0.01,
    cosine.

    Args:
        help_weight: of the images that a later expert would correct.
        top: number of the largest mean logits that the router sees, at most the number of classes.
        hidden: width of a router's layer.
    """

    needs_parent = True
    usual_parent = "ride"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        help_weight: float = 100.0,
        top: int = 30,
        hidden: int = 16,
        experts: int = 3,
        width: float = 0.75,
        scale: float = 30.0,
    ) -> None:
        super().__init__(make_backbone, class_counts, experts=experts, width=width, scale=scale)
        if experts < 2:
            raise BenchError(f"ride_routed: experts: {experts} need no routing; give at least 2")
        self.help_weight, self.top = help_weight, min(top, self.num_classes)
        features = self.backbone.num_features
        self.routers = nn.ModuleList(nn.Linear(features, hidden) for _ in range(experts - 1))
        self.verdict = nn.Linear(hidden + self.top, 1)
        for layer in (*self.routers, self.verdict):
            nn.init.kaiming_normal_(layer.weight)

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, RIDE) or parent.experts != self.experts:
            raise BenchError(
                f"ride_routed starts from a ride of as many experts ({self.experts}), not from this "
                f"{type(parent).__name__}"
            )
        self.backbone.load_state_dict(parent.backbone.state_dict())
        self.head.load_state_dict(parent.head.state_dict())
        for trained in (self.backbone, self.head):
            trained.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    def sampler(self, epoch: int, epochs: int) -> str:
        return "class_balanced"

    def mean_over_images(self) -> bool:
        return True

    def routed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean logits after each expert (K, B, C), and the routers' verdicts (K - 1, B)."""
        features = self.backbone(images)
        logits = self.scale * self.head(features)
        each = torch.arange(1, self.experts + 1, device=logits.device).view(-1, 1, 1)
        means = logits.cumsum(dim=0) / each
        verdicts = []
        for router, own, mean in zip(self.routers, features, means, strict=False):
            seen = F.relu(router(F.normalize(own, dim=1)))
            highest = mean.topk(self.top, dim=1).values
            verdicts.append(self.verdict(torch.cat([highest, seen], dim=1))[:, 0])
        return means, torch.stack(verdicts)

    def loss(self, batch: Batch) -> Tensor:
        means, verdicts = self.routed(batch.images)
        return routing_loss(means, verdicts, batch.labels, self.help_weight)

    def forward(self, images: Tensor) -> Tensor:
        means, verdicts = self.routed(images)
        return route(means, verdicts > 0)


def routing_loss(means: Tensor, verdicts: Tensor, labels: Tensor, help_weight: float) -> Tensor:
    """Return the mean over routers of BCE(verdict, wrong so far and right after some later expert).

    `means` (K, B, C) are the mean logits after each expert, `verdicts` (K - 1, B) the logits of using the
    next.
    """
    right = means.argmax(dim=2) == labels
    later = torch.stack([right[k + 1 :].any(dim=0) for k in range(len(verdicts))])
    helps = (~right[:-1] & later).to(verdicts)
    weight = torch.full_like(verdicts, help_weight)
    return F.binary_cross_entropy_with_logits(verdicts, helps, pos_weight=weight)


def route(means: Tensor, ask: Tensor) -> Tensor:
    """Return the mean logits (B, C) of the experts used: the next only where `ask` (K - 1, B) is true."""
    logits, asked = means[0], torch.ones_like(ask[0])
    for mean, further in zip(means[1:], ask, strict=True):
        asked = asked & further
        logits = torch.where(asked[:, None], mean, logits)
    return logits
