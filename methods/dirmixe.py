"""DirMixE: experts for a Dirichlet mixture of class distributions (Yang et al., ICML 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.method import Batch, Clock, MakeBackbone
from bench.registry import register
from methods.parts.adjusted_experts import AdjustedExperts


@register("dirmixe", golden=True)
class DirMixE(AdjustedExperts):
    """Three experts, for class distributions drawn around the training, the even and the reversed one.

    Late in training the spread of the loss over the drawn distributions is penalised too. The authors draw
    all distributions before training and shuffle them; here each epoch draws its own. quirk: their second
    phase starts at 0.8 of 200 epochs for any number of epochs; here at 0.8 of the run's.

    The defaults are those for CIFAR-100; `spread_weight` is 15 on CIFAR-10, 1 on ImageNet-LT and iNaturalist,
    `power` 1.6 on ImageNet-LT, `concentration` 1e5 on iNaturalist.

    Args:
        trials: distributions drawn for a batch, at most its number of images.
        power: of both priors in the adjustment; 1 would be exact.
        concentration: of the Dirichlet distributions around their centres.
        spread_weight: of the upper semi-variance of the losses.
        spread_from: share of the epochs after which it counts.
    """

    adapts = True
    test_views = "crop_flip_simclr_blur"  # the authors' scripts use SADE's weights
    centres: Tensor
    spread: Tensor

    def __init__(
        self,
        make_backbone: MakeBackbone,
        class_counts: np.ndarray,
        *,
        trials: int = 60,
        power: float = 1.3,
        concentration: float = 1e4,
        spread_weight: float = 5.0,
        spread_from: float = 0.8,
        **common: Any,
    ) -> None:
        super().__init__(make_backbone, class_counts, **common)
        if self.backbone.experts != 3:
            raise BenchError(f"dirmixe has three experts, got experts: {self.backbone.experts}; leave it out")
        self.trials, self.power, self.concentration = trials, power, concentration
        self.spread_weight, self.spread_from = spread_weight, spread_from
        centres = prior_centres(self.class_counts)
        self.register_buffer("centres", centres)
        self.register_buffer("spread", torch.zeros(()))
        self._alpha = (concentration * centres.double()).numpy()

    def draws(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        component = rng.integers(3, size=size)
        weights = rng.standard_gamma(self._alpha[component])
        priors = weights / weights.sum(axis=1, keepdims=True)
        return super().draws(rng, size) | {"component": component, "prior": priors.astype(np.float32)}

    def before_epoch(self, clock: Clock) -> None:
        super().before_epoch(clock)
        late = clock.epoch >= round(self.spread_from * clock.epochs)
        self.spread.fill_(self.spread_weight if late else 0.0)

    def loss(self, batch: Batch) -> Tensor:
        logits = self.training_outputs(self.backbone(batch.images), batch.labels)
        component, priors = (batch.draws[name][: self.trials] for name in ("component", "prior"))
        return dirmixe_loss(logits, batch.labels, self.centres[0], priors, component, self.power, self.spread)


def prior_centres(class_counts: Tensor) -> Tensor:
    """Return the training prior, the even one, and the training prior with ranks reversed, (3, C)."""
    counts = class_counts.clamp(min=1).double()
    prior = counts / counts.sum()
    order = prior.argsort(descending=True, stable=True)
    reverse = torch.empty_like(prior)
    reverse[order] = prior[order.flip(0)]
    return torch.stack([prior, torch.full_like(prior, 1 / len(prior)), reverse]).float()


def dirmixe_losses(
    logits: Tensor, labels: Tensor, prior: Tensor, priors: Tensor, component: Tensor, power: float
) -> Tensor:
    """Return mean_B CE(z_k - log(Q^p / pi^p + 1e-9)) of each drawn prior Q (T, C) and its expert k (T,)."""
    adjustment = (priors**power / prior**power + 1e-9).log()
    log_p = (logits[component] - adjustment[:, None]).log_softmax(dim=2)
    at_label = log_p.gather(2, labels.expand(len(component), -1)[:, :, None])
    return -at_label[:, :, 0].mean(dim=1)


def dirmixe_loss(
    logits: Tensor,
    labels: Tensor,
    prior: Tensor,
    priors: Tensor,
    component: Tensor,
    power: float,
    spread_weight: Tensor | float,
) -> Tensor:
    """Return the mean m of the losses l_t, plus w sum_{l_t > m} (l_t - m)^2 / (#{l_t > m} - 1)."""
    losses = dirmixe_losses(logits, labels, prior, priors, component, power)
    mean = losses.mean()
    above = (losses > mean).to(losses)
    variance = (above * (losses - mean).square()).sum() / (above.sum() - 1).clamp(min=1)
    return mean + spread_weight * variance
