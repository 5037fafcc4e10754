"""DSCL and PBSD: decoupled supervised contrastive learning and patch-based self-distillation.

Xuan & Zhang, AAAI 2024. Stage 1 trains an encoder with a momentum encoder and a queue; stage 2
("dscl_linear") trains the classifier whose accuracy is published.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Batch, Clock, MakeBackbone, Method, View
from bench.registry import register
from methods.crt import CRT
from methods.parts.contrast import unit
from methods.parts.momentum import MomentumCopy
from methods.parts.queue import KeyQueue

Crops = Literal["small", "large"]
_QUERY: dict[Crops, str] = {"small": "dscl_query", "large": "dscl_query_large"}
_KEY: dict[Crops, str] = {"small": "dscl_key", "large": "dscl_key_large"}


@register("dscl", version=2, golden=True, distill=0.0)
@register("pbsd", version=2, golden=True, beta=None)
@register("dscl_pbsd", version=2, golden=True)
class DSCL(Method):
    """Supervised contrast whose pull to the own key does not depend on the frequency of the class.

    The authors train ImageNet-LT and iNaturalist at 224 pixels with `queue` 65536, `patch_size` 64 and
    `crops` "small"; they published no code for 32 pixels, for which the defaults are ours. Blur is theirs in
    shares of the image, which is almost none at 32 pixels. Evaluated alone, its logits are the distances of
    an image's key to the mean key of each class in the queue.

    Args:
        beta: weight of all other samples of the class together, relative to the own key; None weights the own
            key like the others: plain supervised contrast, to which "pbsd" adds its patches.
        distill: weight of the patch distillation; 0 leaves the patches out.
        patches: boxes per image.
        patch_size: side to which a box is resized, in pixels or as a share of the image's side: 0.5 is 16 of
            32 pixels.
        temperature: of all similarities.
        queue: number of keys kept.
        momentum: of the key encoder; the authors' 0.999 averages over about 1.1 % of their 90,400 steps.
        dim: of the projections.
        crops: of query and key, at least 0.08 ("small") or 0.2 ("large") of the image.
    """

    scores = "distances"
    key_momentum = "momentum"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        beta: float | None = 8.0,
        distill: float = 1.5,
        patches: int = 5,
        patch_size: int | float = 0.5,
        temperature: float = 0.07,
        queue: int = 4096,
        momentum: float = 0.999,
        dim: int = 128,
        crops: Crops = "large",
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.beta, self.distill, self.temperature = beta, distill, temperature
        self.boxes = tuple(f"box{i}" for i in range(patches if distill else 0))
        cuts = (View("dscl_patch", patch_of=0, boxes=box, size=patch_size) for box in self.boxes)
        self.views = (View(_QUERY[crops]), View(_KEY[crops]), *cuts)
        self.backbone = make_backbone()
        self.projector = self.make_projector(self.backbone.num_features, dim)
        self.key_backbone = MomentumCopy(self.backbone, momentum)
        self.key_projector = MomentumCopy(self.projector, momentum)
        self.queue = self.make_queue(queue, dim)

    def make_projector(self, features: int, dim: int) -> nn.Module:
        """Build the projector, (B, features) -> (B, dim)."""
        return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, dim))

    def make_queue(self, size: int, dim: int) -> KeyQueue:
        """Build the queue of `size` keys."""
        return KeyQueue(size, dim, self.num_classes)

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return {box: draw_boxes(rng, size) for box in self.boxes}

    def loss(self, batch: Batch) -> Tensor:
        query_view, key_view, *patches = batch.views
        feature_map = self.backbone.feature_map(query_view)
        query = unit(self.projector(self.backbone.pool(feature_map)))
        # one forward for each patch, as the authors normalise each patch's batch by itself
        students = [unit(self.projector(self.backbone(patch))) for patch in patches]
        with torch.no_grad():
            key = self._keys(key_view)
            boxes = [batch.draws[box] for box in self.boxes]
            teachers = [unit(self.projector(self._pool_boxes(feature_map, b))) for b in boxes]
        self.queue.stage(key)
        with torch.autocast(query.device.type, enabled=False):
            keys, key_labels, tau = self.queue.keys, self.queue.labels, self.temperature
            loss = dscl_loss(query, key, keys, batch.labels, key_labels, tau, self.beta)
            if patches:
                distilled = pbsd_loss(torch.stack(teachers), torch.stack(students), key, keys, tau)
                loss = loss + self.distill * distilled
        return loss

    def _pool_boxes(self, feature_map: Tensor, boxes: Tensor) -> Tensor:
        if feature_map.shape[-3] != self.backbone.num_features:
            raise BenchError("PBSD pools boxes of a last feature map (B, D, h, w); choose a ResNet, or dscl")
        return roi_mean(feature_map, boxes)

    def _keys(self, images: Tensor) -> Tensor:
        return unit(self.key_projector(self.key_backbone(images)))

    def after_step(self, clock: Clock, batch: Batch) -> None:
        # the same as the authors' update before the next step's keys, as both encoders start equal
        self.key_backbone.update(self.backbone)
        self.key_projector.update(self.projector)
        self.queue.enqueue(batch.labels)

    def forward(self, images: Tensor) -> Tensor:
        """Return minus the squared distance to each class's mean key; a class without keys is farthest.

        It uses the key encoder, because the query encoder's batch norm statistics come mostly from patches.
        """
        means, present = self.queue.class_means(self.num_classes)
        cosines = self._keys(images) @ means.mT
        return (2 * cosines - 2).masked_fill(~present, -4.0)


@register("dscl_linear", version=2)
class DSCLLinear(CRT):
    """The second stage of DSCL, PBSD and both: a linear classifier on the frozen encoder.

    Args:
        crops: as for the encoder's query.
    """

    usual_parent = "dscl_pbsd"

    def __init__(
        self, make_backbone: MakeBackbone, class_counts: np.ndarray, *, crops: Crops = "large", **common: Any
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.views = (View(_QUERY[crops]),)

    def make_head(self, features: int, classes: int) -> nn.Module:
        head = nn.Linear(features, classes)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        return head


def draw_boxes(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw boxes (size, 4) as x0, y0, x1, y1 in shares of the side.

    The area is uniform in 0.05 to 0.6, the aspect ratio log-uniform in 3/4 to 4/3, as in the authors' code
    (the supplement's Algorithm 1 draws the side instead). Such a box always fits.
    """
    area = rng.uniform(0.05, 0.6, size)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), size))
    sides = np.sqrt(np.stack([area * ratio, area / ratio], axis=1))
    corner = rng.uniform(0, 1 - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def dscl_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    labels: Tensor,
    queue_labels: Tensor,
    temperature: float,
    beta: float | None,
) -> Tensor:
    """Return the mean over queries of -[log p(k_i) + beta mean_{t in P_i} log p(t)] / (1 + beta).

    p is a softmax of similarities over the other queries, all keys and the queue; k_i is the own key and
    P_i the other samples of the class among them; the paper's alpha is 1 / (1 + beta). Without P_i it is
    -log p(k_i). With `beta` None k_i counts like each of P_i.

    Args:
        query, key: (*lead, B, D), unit norm; `queue`: (*lead, K, D); `labels`, `queue_labels`: (B,), (K,).
    """
    contrast = torch.cat([query, key, queue], dim=-2)
    similarity = query @ contrast.mT / temperature
    batch, size = similarity.shape[-2:]
    row, column = torch.arange(batch, device=labels.device)[:, None], torch.arange(size, device=labels.device)
    itself, own = column == row, column == row + batch

    others = (labels[:, None] == torch.cat([labels, labels, queue_labels])) & ~itself & ~own
    count = others.sum(dim=1, keepdim=True)
    weight = count.to(similarity) if beta is None else beta * (count > 0).to(similarity)
    weights = (own + others * weight / count.clamp(min=1)) / (1 + weight)

    log_p = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return -(weights * log_p).sum(dim=-1).mean()


def pbsd_loss(teacher: Tensor, student: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) of the softmax of similarities to the own key and the queue.

    Both are (patches, *lead, B, D), unit norm: the features of a box pooled from the full view's map, and
    those of the encoded crop of that box. The teacher, the same network, gets no gradient. The paper's
    cross-entropy has the same gradient and is larger by the teacher's entropy.
    """

    def log_p(features: Tensor) -> Tensor:
        own = (features * key).sum(dim=-1, keepdim=True)
        return (torch.cat([own, features @ queue.mT], dim=-1) / temperature).log_softmax(dim=-1)

    target = log_p(teacher.detach())
    divergence = F.kl_div(log_p(student), target, reduction="sum", log_target=True)
    return divergence / target[..., 0].numel()


def roi_mean(feature_map: Tensor, boxes: Tensor) -> Tensor:
    """Average a box of each image's feature map, as the mean over the 2x2 bins of ROIAlign.

    It equals torchvision's `roi_align(map, boxes, (2, 2)).mean((2, 3))`. The grid of samples is separable, so
    the mean of the bilinear samples is a weighted sum of rows and columns. quirk: cell i of the map lies at
    coordinate i, half a cell off (`aligned=False`), as in the authors' code.

    Args:
        feature_map: (*lead, B, D, h, w).
        boxes: (B, 4) as x0, y0, x1, y1 in shares of the side.

    Returns:
        (*lead, B, D).
    """
    h, w = feature_map.shape[-2:]
    columns = _sample_weights(boxes[:, 0], boxes[:, 2], w).to(feature_map)
    rows = _sample_weights(boxes[:, 1], boxes[:, 3], h).to(feature_map)
    return torch.einsum("...bdhw,bh,bw->...bd", feature_map, rows, columns)


def _sample_weights(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return the weight of each cell of an axis in the mean of a box's samples, (B, cells).

    ROIAlign takes ceil(bin size) samples in each of the two bins; a box spans at least one cell.
    """
    span = ((high - low) * cells).clamp(min=1)
    samples = 2 * (span / 2).ceil()
    index = torch.arange(2 * -(-cells // 2), device=low.device)
    at = low[:, None] * cells + (index + 0.5) * (span / samples)[:, None]
    cell = torch.arange(cells, device=low.device)
    share = (1 - (at.clamp(0, cells - 1)[:, :, None] - cell).abs()).clamp(min=0)
    used = index < samples[:, None]
    return (share * used[:, :, None]).sum(dim=1) / samples[:, None]
