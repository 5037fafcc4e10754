"""Several steps of learning as one piece: so a replay costs the host one call for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from bench import ranks
from bench.captured import Moves, Play, at_once
from bench.method import Batch, Method
from bench.train.execution import Execution

if TYPE_CHECKING:
    from bench.train.loop import Training


class Joined:
    """Takes batches in, with the rates of their steps, until there are `steps`; then learns from all.

    They lie in places of their own, as what is replayed reads where it read before.
    """

    def __init__(self, steps: int, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.steps, self.optimizer = steps, optimizer
        self.rates = torch.zeros(steps, len(optimizer.param_groups), device=device)
        self.places: dict[tuple[int, int], Batch] = {}
        self.waiting: list[Batch] = []

    def take(self, batch: Batch) -> None:
        """Keep a batch, and the rates that the optimiser now has."""
        number = len(self.waiting)
        place = number, len(batch.labels)
        if place not in self.places:
            self.places[place] = batch.map(torch.clone)
        else:
            for there, new in zip(self.places[place].tensors(), batch.tensors(), strict=True):
                there.copy_(new)
        self.rates[number].copy_(torch.stack([group["lr"] for group in self.optimizer.param_groups]))
        self.waiting.append(self.places[place])

    @property
    def full(self) -> bool:
        """Whether there are as many as one piece has."""
        return len(self.waiting) == self.steps

    def learn(self, play: Play, phase: int, learn: Callable[[Batch], None], moves: Moves) -> None:
        """Make the steps that wait, if there are any."""
        batches, self.waiting = self.waiting, []
        if batches:
            sizes = tuple(len(batch.labels) for batch in batches)
            play(("learn", phase, sizes), partial(self._all, batches, learn), moves)

    def _all(self, batches: list[Batch], learn: Callable[[Batch], None]) -> None:
        for batch, rates in zip(batches, self.rates, strict=False):
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"].copy_(rate)
            learn(batch)


def settled(asked: Execution, training: Training) -> tuple[Execution, list[str]]:
    """Return the options that mean something for a run, and for each other one why it does not."""
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
    told = [f"--execute {n}: left out, as {reasons[n]}" for n in asked.changes().keys() & reasons.keys()]
    return replace(asked, **{name: getattr(Execution(), name) for name in reasons}), told


def has_noise(method: Method) -> bool:
    """Tell whether a method drops anything at random, which is seeded for each step."""
    return any(_share(module) > 0 for module in method.modules())


def _share(module: nn.Module) -> float:
    if isinstance(module, _DropoutNd):
        return module.p
    return float(getattr(module, "drop_prob", 0.0) or 0.0)  # timm's DropPath and DropBlock
