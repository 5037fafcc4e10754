"""The momentum encoder: a moving average of a module in training (He et al., CVPR 2020, eq. 2)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MomentumCopy(nn.Module):
    """A copy of a module, without gradient, whose parameters are moving averages of the module's.

    Only parameters are averaged, as in MoCo; the copy has its own batch norm statistics. (torch's
    AveragedModel synchronises the device at each update.)
    """

    def __init__(self, online: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.average = copy.deepcopy(online).requires_grad_(False)

    def update(self, online: nn.Module) -> None:
        """Set each parameter to momentum * itself + (1 - momentum) * the module's."""
        average, current = list(self.average.parameters()), list(online.parameters())
        get_ema_multi_avg_fn(self.momentum)(average, current, torch.empty(0))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.average(inputs)
