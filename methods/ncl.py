"""NCL: nested collaborative learning of several networks (Li et al., CVPR 2022), without its contrast."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.method import Batch, MakeBackbone, Method
from bench.registry import register


@register("ncl", golden=True, version=2)
class NCL(Method):
    """Networks that learn by balanced softmax and from each other, on all and on the hardest classes.

    The logits are their mean. The paper's optional contrastive term is left out, as in the authors' plain
    CIFAR settings.

    Args:
        networks: how many; they share no weights.
        diversity: weight of the divergences between networks, on all classes and on the hardest.
        hardest: share of the classes that are hard for an image, including its own.
    """

    log_counts: Tensor
    scores = "balanced"

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        networks: int = 3,
        diversity: float = 0.6,
        hardest: float = 0.3,
    ) -> None:
        super().__init__(make_backbone, class_counts)
        if networks < 2:
            raise BenchError(f"ncl: networks: {networks}: they learn from each other; give at least 2")
        self.experts = networks
        backbones = [make_backbone() for _ in range(networks)]
        heads = [nn.Linear(backbone.num_features, self.num_classes) for backbone in backbones]
        self.networks = nn.ModuleList(map(nn.Sequential, backbones, heads))
        self.diversity = diversity
        self.hard_classes = max(2, int(hardest * self.num_classes))
        self.register_buffer("log_counts", self.class_counts.clamp(min=1).float().log())

    def logits(self, images: Tensor) -> Tensor:
        """Return every network's logits, (K, B, C)."""
        return torch.stack([network(images) for network in self.networks])

    def mean_over_images(self) -> bool:
        return True

    def loss(self, batch: Batch) -> Tensor:
        logits = self.logits(batch.images)
        return ncl_loss(logits, batch.labels, self.log_counts, self.hard_classes, self.diversity)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).mean(dim=0)


def ncl_loss(
    logits: Tensor, labels: Tensor, log_counts: Tensor, hard_classes: int, diversity: float
) -> Tensor:
    """Return the collaborative loss of z + log n on all classes plus that on the hardest.

    `logits` are (K, B, C). The hardest classes of an image are its own and those of the first network's
    highest logits, unadjusted. quirk: the others' logits are set to 0 instead of being left out of the
    softmax.
    """
    own_first = logits[0].detach().scatter(1, labels[:, None], torch.inf)
    hard = torch.zeros_like(own_first).scatter(1, own_first.topk(hard_classes, dim=1).indices, 1)
    adjusted = logits + log_counts
    on_all = collaborative_loss(adjusted, labels, diversity)
    return on_all + collaborative_loss(adjusted * hard, labels, diversity)


def collaborative_loss(logits: Tensor, labels: Tensor, diversity: float) -> Tensor:
    """Return sum_k CE(z_k) + diversity / (K - 1) sum_{i != j} KL(p_j || p_i), a mean over the batch.

    quirk: the student's term is log(p + 1e-9), and the teacher has a gradient too.
    """
    log_p = logits.log_softmax(dim=2)
    student = (log_p.exp() + 1e-9).log()
    divergences = [
        F.kl_div(student[i], log_p[j], reduction="batchmean", log_target=True)
        for i, j in permutations(range(len(logits)), 2)
    ]
    own = torch.stack([F.cross_entropy(z, labels) for z in logits]).sum()
    return own + diversity / (len(logits) - 1) * torch.stack(divergences).sum()
