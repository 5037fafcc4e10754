"""CGM-BF-CP + GCLL: a RECONSTRUCTION; as far as is known neither its paper nor its code is public.

It is based on its read-me (numbers, networks, epochs), its likely ancestor GML, and its name: a class-wise
Gaussian mixture over batch features (BF) and class prototypes (CP), and a graph contrastive loss. Constants
that are not BCL's are ours; three were tried on held-out training images (cgm_gcll_search.yaml).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import Clock, MakeBackbone
from bench.registry import register
from methods.bcl import BalancedContrast
from methods.parts.contrast import inner_products


@register("cgm_gcll", reconstruction=True, version=2)
class CGMGCLL(BalancedContrast):
    """BCL's set-up with a class-mixture likelihood instead of its contrast, and a neighbour-graph term.

    Args:
        graph_weight: of the graph term; 0 is CGM alone.
        graph_from: share of the epochs after which the graph term applies (20 of 200).
        graph_temperature: of the edge weights.
        neighbours: of each node by cosine; a pair is joined if either is a neighbour of the other.
        classifier: "cosine" or "linear".
        scale: of the cosines.
        ce_weight: of the logit-adjusted cross-entropy.
        contrast_weight: of the mixture term.
        temperature: of the similarities.
        hidden: width inside the projectors.
        dim: of the projections.
    """

    graph_on: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        graph_weight: float = 0.1,
        graph_from: float = 0.1,
        graph_temperature: float = 0.1,
        neighbours: int = 10,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        self.graph_weight, self.graph_from = graph_weight, graph_from
        self.graph_temperature, self.neighbours = graph_temperature, neighbours
        self.register_buffer("graph_on", torch.zeros(()))

    def before_epoch(self, clock: Clock) -> None:
        self.graph_on.fill_(clock.epoch >= round(self.graph_from * clock.epochs))

    def contrast(self, projections: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        prototypes = self.prototypes()
        mixture = class_mixture_loss(projections, labels, prototypes, self.log_prior, self.temperature)
        with torch.no_grad():
            correct = self.head(features).argmax(dim=1) == labels
        reliable = torch.cat([correct, correct.new_ones(len(prototypes))])
        nodes = torch.cat([projections, prototypes])
        graph = graph_contrast_loss(
            nodes, reliable, self.neighbours, self.graph_temperature, self.temperature
        )
        return self.contrast_weight * mixture + self.graph_on * self.graph_weight * graph


def class_mixture_loss(
    features: Tensor, labels: Tensor, prototypes: Tensor, log_prior: Tensor, temperature: float
) -> Tensor:
    """Return mean_i CE([log S_c(i) + log pi_c]_c, y_i) of unit features (N, D) and prototypes (C, D).

    S_c(i) is the mean of exp(z_i m / t) over the class's components: its other features in the batch and its
    prototype. If no class has a second feature, it is the cross-entropy over prototypes.
    """
    classes = torch.arange(len(prototypes), device=labels.device)
    components = torch.cat([features, prototypes])
    member = torch.cat([labels, classes])[:, None] == classes  # (M, C)
    itself = torch.eye(len(features), len(components), dtype=torch.bool, device=labels.device)
    logits = (inner_products(features, components) / temperature).masked_fill(itself, -torch.inf)
    top = logits.detach().amax(dim=1, keepdim=True)
    sums = inner_products((logits - top).exp(), member.T.to(logits))
    sizes = member.sum(dim=0) - (labels[:, None] == classes).long()
    log_mean = sums.clamp(min=torch.finfo(sums.dtype).tiny).log() + top - sizes.to(logits).log()
    return F.cross_entropy(log_mean + log_prior.to(logits), labels)


def graph_contrast_loss(
    nodes: Tensor, reliable: Tensor, neighbours: int, edge_temperature: float, temperature: float
) -> Tensor:
    """Return the mean over joined anchors i of -sum_j a_ij log(exp(z_i z_j / t) / sum_{m != i} ...).

    Nodes (M, D) are unit vectors. Edges join each node with its nearest reliable ones, with weights a_ij =
    softmax_j(z_i z_j / t_edge) without gradient; classes may differ, so that the tail learns from the head. A
    node without a neighbour has no loss.
    """
    count = len(nodes)
    cosines = inner_products(nodes, nodes)
    itself = torch.eye(count, dtype=torch.bool, device=nodes.device)
    hidden = itself | ~reliable
    near = cosines.detach().masked_fill(hidden, -torch.inf)
    ranks = near.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = (ranks < neighbours) & ~hidden
    joined = (chosen | chosen.T) & ~hidden
    edges = (cosines.detach() / edge_temperature).masked_fill(~joined, -torch.inf).softmax(dim=1)
    edges = torch.where(joined, edges, 0)  # a node without a neighbour has an empty softmax
    logits = cosines / temperature
    log_p = logits - logits.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    is_joined = joined.any(dim=1)
    per_anchor = -(edges * log_p).sum(dim=1)
    return torch.where(is_joined, per_anchor, 0).sum() / is_joined.sum().clamp(min=1)
