"""GML: Gaussian mixture likelihood contrast with a teacher's queue (Suh & Seo, ICML 2023).

The CGM-BF-CP reconstruction builds on it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method, View
from bench.registry import register
from methods.logit_adjustment import LogitAdjustment
from methods.parts.contrast import inner_products
from methods.parts.cosines import CosineClassifier
from methods.parts.heads import CosineHead
from methods.parts.projector import Projector
from methods.parts.weights import log_class_prior


@register("gml_teacher")
class GMLTeacher(CosineClassifier, LogitAdjustment):
    """Logit-adjusted cross-entropy on scaled cosines: the teacher of GML's authors.

    On CIFAR theirs is a ResNet-56, on ImageNet-LT a ResNeXt-101.
    """

    mean_over_images = LogitAdjustment.mean_over_images


@register("gml", golden=True, version=2)
class GML(Method):
    """Contrast with class mixtures of a frozen teacher's features, distillation, and logit adjustment.

    The first view is classified and distilled, the second is the query, and the teacher's features of the
    third enter a queue with slots for each class, whose embeddings are recomputed at every step. The parent
    is the teacher: the authors' is "gml_teacher" on a larger network (they call the size not essential); any
    balanced method works. With a teacher that follows the training prior, such as LDAM-DRW, the student does
    badly on rare classes.

    Args:
        distill: weight of the distillation (0 on ImageNet-LT and iNaturalist).
        contrast_weight: of the two contrastive terms.
        ce_weight: of the logit-adjusted cross-entropy.
        queue: slots in all (16384 on ImageNet-LT).
        base_slots: minimum slots of a class (3 on ImageNet-LT).
        temperature: initial, then learned.
        distill_temperature: of the softened predictions.
        scale: of the classifier's cosines.
        hidden: width inside the projectors; None is the backbone's, as in the authors' code.
        dim: of the embeddings.
    """

    capturable = False  # the rows that the queue gets depend on the batch
    needs_parent = True
    usual_parent = "gml_teacher"
    scores = "balanced"
    views = (View("main"), View("main"), View("main"))
    teacher_backbone: nn.Module
    teacher_head: nn.Module
    log_prior: Tensor
    keys: Tensor
    key_labels: Tensor
    key_index: Tensor
    first_slot: Tensor
    slots: Tensor
    written: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        distill: float = 1.0,
        contrast_weight: float = 1.0,
        ce_weight: float = 1.0,
        queue: int = 4096,
        base_slots: int = 2,
        temperature: float = 0.1,
        distill_temperature: float = 4.0,
        scale: float = 30.0,
        hidden: int | None = None,
        dim: int = 32,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        self.distill, self.contrast_weight, self.ce_weight = distill, contrast_weight, ce_weight
        self.distill_temperature = distill_temperature
        self.backbone = make_backbone()
        features = self.backbone.num_features
        self.head = CosineHead(features, self.num_classes, scale)
        self.embed_query = Projector(features, hidden or features, dim)
        self.embed_key = Projector(features, hidden or features, dim)
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))
        self.register_buffer("log_prior", log_class_prior(self.class_counts))
        slots = class_slots(self.class_counts, queue, base_slots)
        self.register_buffer("slots", slots)
        self.register_buffer("first_slot", slots.cumsum(0) - slots)
        self.register_buffer("written", torch.zeros_like(slots))
        self.register_buffer("keys", torch.zeros(int(slots.sum()), features))
        labels = torch.arange(self.num_classes).repeat_interleave(slots)
        self.register_buffer("key_labels", labels)
        self.register_buffer("key_index", torch.full_like(labels, -1))

    def start_from(self, parent: Method) -> None:
        if not hasattr(parent, "backbone") or not hasattr(parent, "head"):
            raise BenchError(f"{type(parent).__name__} has no single backbone and head to learn from")
        width = getattr(parent.backbone, "num_features", None)
        if width != self.keys.shape[1]:
            raise BenchError(
                f"gml's teacher has features of width {width}, its student of {self.keys.shape[1]}; "
                "choose two networks of one width, as resnet56_cifar and resnet32_cifar"
            )
        self.teacher_backbone = parent.get_submodule("backbone")
        self.teacher_head = parent.get_submodule("head")
        self.teacher_backbone.requires_grad_(False)
        self.teacher_head.requires_grad_(False)

    def train(self, mode: bool = True) -> GML:
        super().train(mode)
        if hasattr(self, "teacher_backbone"):
            self.teacher_backbone.eval()
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        others = [p for p in self.parameters() if p.requires_grad and p is not self.log_temperature]
        return [{"params": others}, {"params": [self.log_temperature], "weight_decay": 0.0}]

    def loss(self, batch: Batch) -> Tensor:
        main, query, key = batch.views
        classified, queried = self.backbone(torch.cat([main, query])).chunk(2)
        with torch.no_grad():
            taught, latest = self.teacher_backbone(torch.cat([main, key])).chunk(2)
            teacher_logits = self.teacher_head(taught)
        logits = self.head(classified)
        ce = F.cross_entropy(logits + self.log_prior, batch.labels)
        taught_loss = distillation_loss(logits, teacher_logits, self.distill_temperature)
        self.enqueue(latest, batch)  # first, so that an image's own key is in the queue for the first copy
        contrast = self.contrast(self.embed_query(queried), batch)
        return self.ce_weight * ce + self.distill * taught_loss + self.contrast_weight * contrast

    def contrast(self, query: Tensor, batch: Batch) -> Tensor:
        """Return the contrast of queries (B, dim) with the current embeddings of all keys of the queue."""
        cosines = inner_products(query, self.embed_key(self.keys.clone()))
        filled = self.key_labels.masked_fill(self.key_index < 0, -1)
        other_image = batch.positions[:, None] != self.key_index
        return mixture_contrast_loss(
            cosines, batch.labels, filled, other_image, self.log_temperature, self.log_prior
        )

    @torch.no_grad()
    def enqueue(self, latest: Tensor, batch: Batch) -> None:
        """Write the batch's teacher features into the slots of their classes, oldest first."""
        member = F.one_hot(batch.labels, self.num_classes)
        rank = (member.cumsum(0) - 1).gather(1, batch.labels[:, None])[:, 0]
        slots = self.slots[batch.labels]
        last = rank >= member.sum(0)[batch.labels] - slots  # leaves out rows that the batch would overwrite
        at = (self.first_slot[batch.labels] + (self.written[batch.labels] + rank) % slots)[last]
        self.keys[at] = latest[last].to(self.keys)
        self.key_index[at] = batch.positions[last]
        self.written.add_(member.sum(0)).remainder_(self.slots)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def class_slots(class_counts: Tensor, total: int, base: int) -> Tensor:
    """Share `total` slots: `base` for each class and the rest by frequency, rounded by cumulative ceil."""
    shares = class_counts.double().cumsum(0) / class_counts.sum()
    free = max(total - len(class_counts) * base, 0)
    ends = (shares * free - 1e-9).ceil().long().clamp(min=0)
    return base + ends.diff(prepend=ends.new_zeros(1))


def mixture_contrast_loss(
    cosines: Tensor,
    labels: Tensor,
    key_labels: Tensor,
    other_image: Tensor,
    log_temperature: Tensor,
    log_prior: Tensor,
) -> Tensor:
    """Return the sum of two copies of the likelihood loss, for the embeddings and for the temperature.

    The first copy has a fixed temperature and all keys, including those of the same image. The second has
    fixed embeddings, and leaves out keys of the same image and anchors whose class has no other key (where
    the authors' code divides by zero).

    Args:
        cosines: (N, M) of queries with keys; `labels` (N,) are the queries'.
        key_labels: (M,), -1 for an empty slot.
        other_image: whether a key is of another image than the query, (N, M).
        log_prior: log pi, (C,).
    """
    temperature = log_temperature.exp()
    member = key_labels[:, None] == torch.arange(len(log_prior), device=key_labels.device)
    every = torch.ones_like(other_image)
    embeddings = log_mixtures(cosines / temperature.detach(), member, every) + log_prior
    for_temperature = log_mixtures(cosines.detach() / temperature, member, other_image) + log_prior
    comparable = (other_image & (labels[:, None] == key_labels)).any(dim=1)
    each = F.cross_entropy(for_temperature, labels, reduction="none")
    second = torch.where(comparable, each, 0).sum() / comparable.sum().clamp(min=1)
    return F.cross_entropy(embeddings, labels) + second


def log_mixtures(logits: Tensor, member: Tensor, allowed: Tensor) -> Tensor:
    """Return log S_c, (N, C), where S_c is the mean of exp(logits) over the allowed keys of class c.

    `logits` and `allowed` are (N, M); `member` (M, C) is the keys' classes. A class without an allowed key
    gets the smallest finite value instead of minus infinity.
    """
    allowed = allowed & member.any(dim=1)
    top = logits.detach().masked_fill(~allowed, -torch.inf).amax(dim=1, keepdim=True).clamp(min=-1e4)
    weights = (logits - top).masked_fill(~allowed, -torch.inf).exp()  # masked again, as exp may overflow
    sums = inner_products(weights, member.T.to(logits))
    sizes = inner_products(allowed.to(logits), member.T.to(logits))
    tiny = torch.finfo(logits.dtype).tiny
    return sums.clamp(min=tiny).log() + top - sizes.clamp(min=1).log()


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher / T || student / T), the batch mean (Hinton et al., 2015)."""
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
