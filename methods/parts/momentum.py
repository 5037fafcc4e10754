"""The momentum encoder: a slow copy of a module that is being trained (He et al., CVPR 2020, eq. 2)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MomentumCopy(nn.Module):
    """A copy of a module, without gradient, whose parameters follow the module's by moving average.

    Only parameters are averaged, as in MoCo: batch norm statistics are the copy's own, from its own
    inputs. (torch's AveragedModel asks the device at each update whether it is the first.)
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
