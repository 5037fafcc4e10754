"""Several training steps in one CUDA graph, so that the host replays them with one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from bench import ranks
from bench.captured import Changed, Play, at_once
from bench.method import Batch, Method
from bench.train.execution import Execution

if TYPE_CHECKING:
    from bench.train.loop import Training


class Joined:
    """Collects batches, with the rates of their steps, until there are `steps`; then learns from all.

    Batches are copied to fixed buffers, because a replay reads the memory that it read before.
    """

    def __init__(self, steps: int, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.steps, self.optimizer = steps, optimizer
        self.rates = torch.zeros(steps, len(optimizer.param_groups), device=device)
        self.buffers: dict[tuple[int, int], Batch] = {}
        self.waiting: list[Batch] = []

    def take(self, batch: Batch) -> None:
        """Keep a batch, and the optimiser's current rates."""
        number = len(self.waiting)
        key = number, len(batch.labels)
        if key not in self.buffers:
            self.buffers[key] = batch.map(torch.clone)
        else:
            for buffer, new in zip(self.buffers[key].tensors(), batch.tensors(), strict=True):
                buffer.copy_(new)
        self.rates[number].copy_(torch.stack([group["lr"] for group in self.optimizer.param_groups]))
        self.waiting.append(self.buffers[key])

    @property
    def full(self) -> bool:
        """Whether there are `steps` batches."""
        return len(self.waiting) == self.steps

    def learn(self, play: Play, phase: int, learn: Callable[[Batch], None], changed: Changed) -> None:
        """Make the waiting steps, if there are any."""
        batches, self.waiting = self.waiting, []
        if batches:
            sizes = tuple(len(batch.labels) for batch in batches)
            play(("learn", phase, sizes), partial(self._all, batches, learn), changed)

    def _all(self, batches: list[Batch], learn: Callable[[Batch], None]) -> None:
        for batch, rates in zip(batches, self.rates, strict=False):
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"].copy_(rate)
            learn(batch)


def applicable(asked: Execution, training: Training) -> tuple[Execution, list[str]]:
    """Return the options that apply to a run, and a message for each other one with the reason."""
    if training.cell.mode != "fast":
        return Execution(benchmark=asked.benchmark), []
    reasons, method = {}, training.method
    if ranks.world() > 1:
        reasons["compile"] = reasons["steps"] = "the run is over several GPUs"
    elif training.play is at_once:
        reasons["steps"] = "its steps are not replayed"
    elif not method.joins_steps() or training.average is not None or training.displacement is not None:
        reasons["steps"] = "something is done between its steps"
    elif has_noise(method):
        reasons["steps"] = "its noise is seeded for each step"
    ignored = asked.changes().keys() & reasons.keys()
    messages = [f"--execute {name}: left out, as {reasons[name]}" for name in ignored]
    return replace(asked, **{name: getattr(Execution(), name) for name in reasons}), messages


def has_noise(method: Method) -> bool:
    """Whether a method has dropout of any kind, which is seeded for each step."""
    return any(_drop_rate(module) > 0 for module in method.modules())


def _drop_rate(module: nn.Module) -> float:
    if isinstance(module, _DropoutNd):
        return module.p
    return float(getattr(module, "drop_prob", 0.0) or 0.0)  # timm's DropPath and DropBlock
