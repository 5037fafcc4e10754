"""Averaged weights, exponential (EMA) or over the last epochs (SWA), evaluated beside the last weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bench.cell import Averaging
from bench.method import Clock, Method


class Average:
    """A running mean of a method's weights.

    EMA averages batch norm's statistics too. SWA (Izmailov et al., UAI 2018) computes them from the
    unaugmented training images, since the averaged network has not seen any.
    """

    def __init__(self, method: Method, settings: Averaging) -> None:
        self.method, self.settings = method, settings
        self.means = {name: tensor.detach().clone() for name, tensor in self._tensors()}
        self.count = 0

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.method.named_parameters()
        if self.settings.kind == "ema":
            for name, buffer in self.method.named_buffers():
                if buffer.is_floating_point():
                    yield name, buffer

    @torch.no_grad()
    def _move(self, share: float) -> None:
        current = [tensor for _, tensor in self._tensors()]
        torch._foreach_lerp_([self.means[name] for name, _ in self._tensors()], current, share)
        self.count += 1

    def after_step(self) -> None:
        """Update EMA after a step; its decay rises to its value, so that the first weights soon fade."""
        if self.settings.kind == "ema":
            self._move(1 - min(self.settings.decay, (1 + self.count) / (10 + self.count)))

    def after_epoch(self, clock: Clock) -> None:
        """Update SWA after an epoch."""
        if self.settings.kind == "swa" and clock.epoch + 1 > self.settings.start * clock.epochs:
            self._move(1 / (self.count + 1))

    @contextmanager
    def in_place(self, training_set: Iterable[tuple[Tensor, Tensor]]) -> Iterator[None]:
        """Give the method the averaged weights inside the `with` block."""
        kept = {name: tensor.detach().clone() for name, tensor in self._everything()}
        with torch.no_grad():
            for name, tensor in self._tensors():
                tensor.copy_(self.means[name])
        if self.settings.kind == "swa":
            _update_batch_norm(self.method, training_set)
        yield
        with torch.no_grad():
            for name, tensor in self._everything():
                tensor.copy_(kept[name])

    def _everything(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.method.named_parameters()
        yield from self.method.named_buffers()

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"means": self.means, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.means, self.count = state["means"], state["count"]


@torch.no_grad()
def _update_batch_norm(method: Method, training_set: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set batch norm's statistics to their means over all batches."""
    normed = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    normed = [m for m in normed if m.track_running_stats]
    if not normed:
        return
    momenta = [module.momentum for module in normed]
    method.eval()
    for module in normed:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    for images, _ in training_set:
        method(images)
    for module, momentum in zip(normed, momenta, strict=True):
        module.momentum = momentum
    method.eval()
