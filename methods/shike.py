"""SHIKE: self-heterogeneous integration with knowledge excavation (Jin et al., CVPR 2023)."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register
from methods.parts.experts import ExpertBackbone, PerExpert
from methods.parts.heads import CosineHead
from methods.parts.weights import log_class_prior


class FusedEnsemble(Method):
    """Experts on features of different depths; the logits are the mean of their scaled cosines.

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

    The authors' network has convolutions in its shortcuts (1.28 million parameters), ours the backbone's
    shortcuts.

    Args:
        hardest_negative: weight of the hardest-negative suppression, chosen for 100 classes; with fewer the
            term is larger, as it is a mean over classes.
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

    quirk: the batches are ordinary ones, and batch norm's statistics still adapt, as in the authors' code.
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
                f"shike starts from shike_stage_1 with as many experts ({len(self.head.each)}), not from "
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

    quirk: both divergences are means over all B * C elements, C times smaller than the paper's.
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


class FusedExperts(ExpertBackbone):
    """A backbone whose last stage exists once per expert, multiplied by convolutions of a shallower stage.

    Expert i starts from stage i of those shared, in turn: on a CIFAR ResNet from layer1, layer2, layer1.
    """

    def __init__(self, make_backbone: MakeBackbone, experts: int) -> None:
        whole = make_backbone()
        if len(whole.stage_names) < 3:
            raise BenchError("experts need a backbone of several stages; choose a ResNet")
        *shared, last = whole.stage_names
        branches = [make_backbone(after=shared[-1]) for _ in range(experts)]
        super().__init__({name: whole.stages[name] for name in shared}, whole._pool, whole.num_features)
        self.deep = nn.ModuleList(branch.stages[last] for branch in branches)
        channels = _channels(whole)[1:]
        sources = len(shared) - 1  # shallow features come from the shared stages, without the stem
        self.shallow = nn.ModuleList(_descent(channels[i % sources :]) for i in range(experts))

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the experts' last feature maps, the product of their two parts."""
        maps = []
        for stage in self.stages.values():
            images = stage(images)
            maps.append(images)
        shallow_maps = maps[1:]
        experts = enumerate(zip(self.deep, self.shallow, strict=True))
        return torch.stack(
            [deep(images) * shallow(shallow_maps[i % len(shallow_maps)]) for i, (deep, shallow) in experts]
        )


def _descent(channels: list[int]) -> nn.Sequential:
    """Strided 3x3 convolutions through the widths of the stages, halving the side each time.

    quirk: a ReLU follows each but the second.
    """
    layers = nn.Sequential()
    for number, (inputs, outputs) in enumerate(pairwise(channels)):
        layers.extend([nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs)])
        if number != 1:
            layers.append(nn.ReLU())
    return layers


@torch.no_grad()
def _channels(backbone: Backbone) -> list[int]:
    """Measure the channels of every stage's output."""
    backbone.eval()
    x, found = torch.zeros(1, 3, 64, 64), []
    for stage in backbone.stages.values():
        x = stage(x)
        found.append(x.shape[1])
    backbone.train()
    return found
