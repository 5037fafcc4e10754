"""TSC: targeted supervised contrastive learning (Li et al., CVPR 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor

from bench.errors import BenchError
from bench.method import Clock, MakeBackbone, Method
from bench.registry import register
from methods.kcl import KCL, KCLLinear, kcl_loss
from methods.parts.contrast import count_of_class


@register("tsc", golden=True)
class TSC(KCL):
    """Contrast that also pulls each class to its own target; the targets are spread evenly on the sphere.

    It starts from a trained KCL, with a new optimiser and schedule: the two halves of the authors' run are
    two cells of half the epochs. The assignment of targets to classes is solved at every step, so that the
    classes move as little as possible; with thousands of classes this takes longer than the step. The
    authors' CIFAR numbers come from another code (based on SupCon's, 1000 epochs), which is only partly
    public.

    Args:
        target_weight: of the pull to the target, relative to that of the own key.
    """

    capturable = False  # the assignment is solved on the host
    needs_parent = True
    usual_parent = "kcl"
    targets: Tensor
    centroids: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        target_weight: float = 0.2,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.target_weight = target_weight
        directions = F.normalize(torch.randn(2, *self.prototypes.means.shape), dim=-1)
        self.register_buffer("targets", directions[0].clone())
        self.register_buffer("centroids", directions[1].clone())

    def start_from(self, parent: Method) -> None:
        if not isinstance(parent, KCL):
            raise BenchError(f"tsc starts from kcl, not from {type(parent).__name__}; name a kcl in from:")
        try:
            self.load_state_dict(parent.state_dict(), strict=False)
        except RuntimeError as error:
            raise BenchError("tsc needs its parent's backbone, queue and dim; give both the same") from error

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        if clock.epoch == 0:
            self.targets.copy_(spread(self.targets))

    def contrast(self, query: Tensor, key: Tensor, picked: Tensor, labels: Tensor) -> Tensor:
        self.centroids.copy_(follow_centroids(self.centroids, query.detach(), labels))
        targets = self.targets[assign(self.centroids, self.targets)]
        own = self.target_weight * F.one_hot(labels, self.num_classes)
        others, weights = torch.cat([self.queue.keys, targets]), torch.cat([picked, own], dim=1)
        return kcl_loss(query, key, others, weights, self.temperature)


@register("tsc_linear")
class TSCLinear(KCLLinear):
    """The second stage of TSC: a linear classifier on the frozen encoder, from class-balanced batches."""

    usual_parent = "tsc"


def follow_centroids(centroids: Tensor, query: Tensor, labels: Tensor, momentum: float = 0.9) -> Tensor:
    """Move the unit centroids (C, D) of the classes that are present towards their queries' mean."""
    means = F.normalize(torch.zeros_like(centroids).index_add(0, labels, query), dim=1)
    moved = F.normalize(momentum * centroids + (1 - momentum) * means, dim=1)
    present = count_of_class(labels, len(centroids)) > 0
    return torch.where(present[:, None], moved, centroids)


def assign(centroids: Tensor, targets: Tensor) -> Tensor:
    """Return the index of each class's target, (C,): the assignment with the largest sum of cosines."""
    cosines = (centroids @ targets.T).cpu().numpy()
    return torch.from_numpy(linear_sum_assignment(cosines, maximize=True)[1]).to(targets.device)


def uniformity(points: Tensor, temperature: float = 0.07) -> Tensor:
    """Return mean_i log sum_j exp(x_i x_j / t) of unit points (C, D); lower means more even."""
    return (points @ points.T / temperature).logsumexp(dim=1).mean()


def spread(points: Tensor, temperature: float = 0.07, iterations: int = 50) -> Tensor:
    """Spread points (C, D) over the unit sphere; up to D + 1 of them become a regular simplex.

    The authors make 10000 steps of Adam on `uniformity`, most of which is a constant, the self-similarities.
    Without them, L-BFGS reaches lower values in 50 iterations.
    """
    itself = torch.eye(len(points), dtype=torch.bool, device=points.device)
    free = points.detach().double().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free], max_iter=iterations, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def energy() -> Tensor:
        unit = F.normalize(free, dim=1)
        value = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf).flatten().logsumexp(dim=0)
        (free.grad,) = torch.autograd.grad(value, free)
        return value

    with torch.enable_grad():
        optimizer.step(energy)
    return F.normalize(free.detach(), dim=1).to(points)
