"""SBCL: contrast balanced over sub-classes (Hou et al., ICCV 2023), its two stages."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from bench.method import Batch, Clock, MakeBackbone, Method, View
from bench.registry import register
from methods.ldam import LDAM
from methods.parts.contrast import count_of_class, inner_products
from methods.parts.frozen import FrozenBackbone
from methods.parts.kmeans import kmeans
from methods.parts.projector import Projector
from methods.parts.prototypes import RunningPrototypes
from methods.supcon import supcon_loss


@register("sbcl_stage_1", golden=True)
class SBCLStage1(Method):
    """Contrast by sub-class and by class; frequent classes are split into sub-classes of similar size.

    After a warm-up of plain SupCon, classes are clustered every few epochs by the projections of their
    images. The authors' images are augmented once, ours are not; ours are clustered by Euclidean distance of
    unit vectors, from starts spread over the class. The authors train 1,000 epochs on CIFAR.

    Args:
        least: minimum images of a sub-class: 10 on CIFAR, 20 on ImageNet-LT.
        every: epochs between clusterings.
        warmup: epochs of SupCon before the first.
        class_weight: of the class term, relative to the sub-class term.
        temperature: of the similarities.
        base_temperature: the sub-class term is multiplied by temperature / base_temperature.
        ranked: give the class term a temperature for each class, higher for those spread wider, and leave
            the same sub-class out of its denominator.
        dim: of the projections.
    """

    scores = "distances"
    views = (View("supcon"), View("supcon"))
    subclasses: Tensor
    temperatures: Tensor
    clustered: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        least: int = 10,
        every: int = 10,
        warmup: int = 10,
        class_weight: float = 0.25,
        temperature: float = 0.1,
        base_temperature: float = 0.07,
        ranked: bool = True,
        dim: int = 128,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.every, self.warmup = every, warmup
        self.class_weight, self.ranked = class_weight, ranked
        self.temperature, self.base_temperature = temperature, base_temperature
        self.backbone = make_backbone()
        features = self.backbone.num_features
        self.projector = Projector(features, features, dim, batch_norm=False)
        self.prototypes = RunningPrototypes(self.num_classes, dim)
        self.clusters = clusters_per_class(self.class_counts, least).tolist()
        self.register_buffer("subclasses", torch.zeros(int(self.class_counts.sum()), dtype=torch.int64))
        self.register_buffer("temperatures", torch.full((self.num_classes,), temperature))
        self.register_buffer("clustered", torch.tensor(False))

    def wants_training_set(self, clock: Clock) -> bool:
        return clock.epoch >= self.warmup and (clock.epoch - self.warmup) % self.every == 0

    def phase(self, epoch: int, epochs: int) -> int:
        return int(epoch >= self.warmup)

    def before_epoch(self, clock: Clock) -> None:
        self.clustered.fill_(clock.epoch >= self.warmup)

    def read_training_set(self, clock: Clock, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
        read = [(self.projector(self.backbone(images)), labels) for images, labels in training_set]
        points, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        self.subclasses[: len(labels)] = split_classes(points, labels, self.clusters)
        self.temperatures.copy_(
            sbcl_temperatures(points, labels, self.class_counts, self.clusters, self.temperature)
        )

    def loss(self, batch: Batch) -> Tensor:
        projections = self.projector(self.backbone(torch.cat(batch.views)))
        self.prototypes.follow(projections, batch.labels.repeat(2))
        views = projections.view(2, len(batch.labels), -1)
        plain = supcon_loss(views, batch.labels, self.temperature, self.temperature)
        split = sbcl_loss(
            views,
            batch.labels,
            self.subclasses[batch.positions],
            self.temperature,
            self.base_temperature,
            self.class_weight,
            self.temperatures if self.ranked else None,
        )
        return torch.where(self.clustered, split, plain)

    def forward(self, images: Tensor) -> Tensor:
        return self.prototypes.cosines(self.projector(self.backbone(images)))


@register("sbcl", reweight_from=0.0, batch_norm="eval", golden=True)
class SBCL(FrozenBackbone, LDAM):
    """The classifier of SBCL: class-weighted LDAM on the frozen encoder, from ordinary batches.

    The weights apply from the first epoch, unlike in DRW. The authors' stage has 200 epochs at lr 0.1,
    without weight decay.
    """

    usual_parent = "sbcl_stage_1"


def clusters_per_class(class_counts: Tensor, least: int) -> Tensor:
    """Return the number of sub-classes of each class, n_c / max(n_min, least) rounded down, (C,)."""
    present = class_counts[class_counts > 0]
    size = max(int(present.min()) if len(present) else 1, least)
    return (class_counts // size).clamp(min=1)


def split_classes(points: Tensor, labels: Tensor, clusters: list[int]) -> Tensor:
    """Return the sub-classes (N,), numbered over all classes, of unit vectors (N, D) with labels (N,)."""
    found, before = torch.zeros_like(labels), 0
    for label, count in enumerate(clusters):
        own = (labels == label).nonzero()[:, 0]
        count = min(count, max(len(own), 1))
        if count > 1:
            start = points[own[torch.arange(count, device=own.device) * len(own) // count]]
            known = torch.ones(1, len(own), dtype=torch.bool, device=own.device)
            _, cluster = kmeans(points[own][None], known, start[None], iterations=35, tolerance=1e-3)
            found[own] = before + cluster[0]
        else:
            found[own] = before
        before += count
    return found


def sbcl_temperatures(
    points: Tensor, labels: Tensor, class_counts: Tensor, clusters: list[int], temperature: float
) -> Tensor:
    """Return each class's temperature (C,): T times its spread over the mean spread, or T if it is not split.

    The spread is the mean distance to the class mean over log(n_c + 10), clamped to the 20th and 80th
    percentile of all classes.
    """
    classes = len(class_counts)
    counts = count_of_class(labels, classes).clamp(min=1)
    sums = torch.zeros(classes, points.shape[1], device=labels.device).index_add(0, labels, points)
    distances = (points - (sums / counts[:, None])[labels]).norm(dim=1)
    mean_distance = torch.zeros_like(counts).index_add(0, labels, distances) / counts
    return spread_temperatures(mean_distance, class_counts, clusters, temperature)


def spread_temperatures(
    mean_distance: Tensor, class_counts: Tensor, clusters: list[int], temperature: float
) -> Tensor:
    """Return temperatures (C,) for mean distances (C,) to the class means, see `sbcl_temperatures`."""
    spread = mean_distance.double() / (class_counts.double() + 10).log()
    low, high = spread.quantile(0.2), spread.quantile(0.8)
    spread = spread.clamp(low, high)
    several = torch.tensor(clusters, device=spread.device) > 1
    scaled = temperature * spread / spread.mean().clamp(min=1e-12)
    return torch.where(several, scaled, temperature).float()


def sbcl_loss(
    views: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    temperature: float,
    base_temperature: float,
    class_weight: float,
    ranked: Tensor | None = None,
) -> Tensor:
    """Return the mean over anchors, unit vectors (V, B, D), of -(T / T0) mean_S log p - g mean_P log q.

    p is a softmax over all but the anchor at T, and S its sub-class. Without `ranked` q is p and P its class.
    With `ranked` temperatures (C,) q has that of the anchor's class, over other sub-classes and the anchor's
    other views, and P is those of its class.
    """
    count, size, _ = views.shape
    points = views.flatten(0, 1)
    y, s = labels.repeat(count), subclasses.repeat(count)
    image = torch.arange(size, device=labels.device).repeat(count)
    itself = torch.eye(len(points), dtype=torch.bool, device=labels.device)
    same_image = (image[:, None] == image) & ~itself
    same_class, same_subclass = (v[:, None] == v for v in (y, s))
    cosines = inner_products(points, points)
    log_p = _log_softmax(cosines / temperature, ~itself)
    first = _mean_where(log_p, same_subclass & ~itself)
    if ranked is None:
        second = _mean_where(log_p, same_class & ~itself)
    else:
        others = (~same_subclass | same_image) & ~itself
        own = ranked[y].to(cosines)[:, None]
        second = _mean_where(_log_softmax(cosines / own, others), same_class & others)
    return -(temperature / base_temperature * first + class_weight * second).mean()


def _log_softmax(logits: Tensor, among: Tensor) -> Tensor:
    return logits - logits.masked_fill(~among, -torch.inf).logsumexp(dim=1, keepdim=True)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return values.masked_fill(~chosen, 0).sum(dim=1) / chosen.sum(dim=1).clamp(min=1)
