"""BCCL: balanced clustering contrastive learning (the repository GGTINE/Balanced-Clustering-...).

Two views, a queue of past projections for each class, and its k-means centroids. The paper's text was not
available; this follows the published code, in which only the batch averaging and the logit adjustment depend
on class frequencies.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.method import Batch, Clock, MakeBackbone, Method, View
from bench.registry import register
from methods.parts.contrast import class_averaged_contrast, count_of_class, inner_products
from methods.parts.heads import CosineHead
from methods.parts.kmeans import kmeans
from methods.parts.projector import Projector
from methods.parts.weights import log_class_prior


@register("bccl", golden=True, version=2)
class BCCL(Method):
    """Class-averaged contrast of two views, a logit-adjusted classifier, and a pull to class centroids.

    Args:
        warmup_epochs: epochs before the centroids, which are then recomputed before every step of each
            `refresh_every`-th epoch.
        refresh_every: in epochs.
        centroids: of each class.
        queue: projections kept of each class.
        scale: of the classifier's cosines.
        ce_weight: of the logit-adjusted cross-entropy.
        contrast_weight: of the contrast.
        centroid_weight: of the pull to the centroids.
        temperature: of the similarities (0.07 on ImageNet-LT).
        hidden: width inside the projector.
        dim: of the projections.
    """

    scores = "balanced"
    capturable = False  # the rows that a class's queue gets depend on the batch
    views = (View("main"), View("simclr"))
    log_prior: Tensor
    centers: Tensor
    clustered: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        warmup_epochs: int = 10,
        refresh_every: int = 10,
        centroids: int = 5,
        queue: int = 100,
        scale: float = 1 / 0.03,
        ce_weight: float = 1.0,
        contrast_weight: float = 1.0,
        centroid_weight: float = 0.1,
        temperature: float = 0.1,
        hidden: int = 512,
        dim: int = 128,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.warmup_epochs, self.refresh_every = warmup_epochs, refresh_every
        self.ce_weight, self.contrast_weight = ce_weight, contrast_weight
        self.centroid_weight, self.temperature = centroid_weight, temperature
        self.backbone = make_backbone()
        self.head = CosineHead(self.backbone.num_features, self.num_classes, scale, longest=5.0)
        self.projector = Projector(self.backbone.num_features, hidden, dim)
        self.queue = ClassQueue(self.num_classes, queue, dim)
        self.register_buffer("log_prior", log_class_prior(self.class_counts))
        self.register_buffer("centers", torch.zeros(self.num_classes, centroids, dim))
        self.register_buffer("clustered", torch.zeros(()))
        self.latest = torch.empty(0)  # this step's projections, between loss and queue

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return {"rows": rng.random((size, self.queue.size), dtype=np.float32)}

    def before_step(self, clock: Clock, batch: Batch) -> None:
        if clock.epoch < self.warmup_epochs or clock.epoch % self.refresh_every:
            return
        start = self.queue.pick(batch.draws["rows"][0], self.centers.shape[1])
        self.centers.copy_(kmeans(self.queue.rows, self.queue.filled(), start)[0])
        self.clustered.fill_(1)

    def loss(self, batch: Batch) -> Tensor:
        features = self.backbone(torch.cat(batch.views))
        projections = self.projector(features)
        self.latest = projections.detach()
        labels = batch.labels.repeat(len(batch.views))
        logits = self.head(features[: len(batch.labels)])
        ce = F.cross_entropy(logits + self.log_prior, batch.labels)
        images = count_of_class(batch.labels, self.num_classes)  # quirk: images, not views
        contrast = class_averaged_contrast(projections, labels, self.temperature, images)
        pull = self.clustered * centroid_loss(projections, labels, self.centers)
        return self.ce_weight * ce + self.contrast_weight * contrast + self.centroid_weight * pull

    def after_step(self, clock: Clock, batch: Batch) -> None:
        self.queue.add(self.latest, batch.labels.repeat(len(batch.views)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def centroid_loss(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Return the mean over features (N, D) and centroids (C, K, D) of -z a, or of z a for other classes.

    quirk: neither a temperature nor a log-sum-exp, as -log(exp(d m) / exp(d (1 - m))) reduces to this.
    """
    dots = inner_products(features, centers.flatten(0, 1)).unflatten(1, centers.shape[:2])
    own = F.one_hot(labels, len(centers)).bool()[:, :, None]
    return torch.where(own, -dots, dots).mean()


class ClassQueue(nn.Module):
    """The last `size` projections of each class, (C, size, D), oldest first, and their number (C,).

    quirk: projections of a class that first comes after the first step are stored twice, as in the authors'
    code.
    """

    rows: Tensor
    counts: Tensor
    begun: Tensor

    def __init__(self, classes: int, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("rows", torch.zeros(classes, size, dim))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("begun", torch.tensor(False))

    @torch.no_grad()
    def add(self, projections: Tensor, labels: Tensor) -> None:
        """Append projections (N, D) to the queues of their labels (N,), dropping the oldest."""
        for c in labels.unique().tolist():
            new = projections[labels == c].to(self.rows)
            kept = self.rows[c, : self.counts[c]]
            if self.begun and not len(kept):
                kept = new
            whole = torch.cat([kept, new])[-self.size :]
            self.rows[c, : len(whole)] = whole
            self.counts[c] = len(whole)
        self.begun.fill_(True)

    def filled(self) -> Tensor:
        """Return which rows are in use, (C, size) bool."""
        return torch.arange(self.size, device=self.counts.device) < self.counts[:, None]

    def pick(self, order: Tensor, count: int) -> Tensor:
        """Return `count` distinct rows of each class, (C, count, D), chosen by random keys (size,).

        A class with fewer rows is padded with zeros (the authors' code fails there).
        """
        filled = self.filled()
        keys = torch.where(filled, order, 2.0)
        chosen = keys.argsort(dim=1)[:, :count, None]
        picked = self.rows.gather(1, chosen.expand(-1, -1, self.rows.shape[2]))
        return picked * filled.gather(1, chosen[:, :, 0])[:, :, None]
