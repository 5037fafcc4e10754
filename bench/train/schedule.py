"""The learning-rate schedule and the optimiser of a run."""

from __future__ import annotations

import math

import torch

from bench.cell import Optimizer, Schedule
from bench.method import Clock, Method


def lr_factor(schedule: Schedule, clock: Clock) -> float:
    """Return the factor of the base rate at the clock's time.

    Warm-up over w epochs is s + (1 - s) (e + 1) / w for e < w, s being `warmup_from` (LDAM-DRW: 0, so 0.2,
    0.4, ... 1). Steps do not multiply: from milestone i on the factor is factors[i]. Cosine falls from 1
    after the warm-up towards 0 at the end: (1 + cos(pi t)) / 2 with t = (e - w) / (E - w), by epoch or by
    step; a lead is added to both differences.
    """
    if clock.epoch < schedule.warmup_epochs:
        start = schedule.warmup_from
        return start + (1 - start) * (clock.epoch + 1) / schedule.warmup_epochs
    if schedule.kind == "steps":
        passed = [f for m, f in zip(schedule.milestones, schedule.factors, strict=True) if m <= clock.epoch]
        return passed[-1] if passed else 1.0
    if schedule.kind == "cosine":
        return (1 + math.cos(math.pi * _share_after_warmup(schedule, clock))) / 2
    return 1.0


def _share_after_warmup(schedule: Schedule, clock: Clock) -> float:
    warmup = schedule.warmup_epochs
    epoch = clock.epoch if schedule.per == "epoch" else clock.step / clock.steps * clock.epochs
    return (epoch - warmup + schedule.lead) / (clock.epochs - warmup + schedule.lead)


def make_optimizer(
    method: Method, settings: Optimizer, fused: bool, captured: bool = False
) -> torch.optim.Optimizer:
    """Build the optimiser of the method's parameter groups, which keep their `lr_factor`.

    If its steps are `captured` in a CUDA graph, its rates are tensors, which `set_lr` changes in place.
    """
    groups = [{"lr_factor": 1.0, **group} for group in method.param_groups()]
    if captured:
        for group in groups:
            group["lr"] = torch.tensor(settings.lr, device=method.class_counts.device)
    if settings.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused, capturable=captured
        )
    sgd = torch.optim.SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=fused,
    )
    if settings.momentum:
        # The fused step needs all momenta at once, but a parameter may get its first gradient late (RSG).
        # From zero the first step is the same as torch's, which starts from the gradient.
        for group in sgd.param_groups:
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's rate to `lr` times the group's own factor."""
    for group in optimizer.param_groups:
        rate = lr * group["lr_factor"]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
