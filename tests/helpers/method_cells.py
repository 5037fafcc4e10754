"""A cell, a batch and a step of any registered method."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench import registry
from bench.cell import BackboneChoice, Cell, DataSet, Protocol
from bench.data.augment import policy
from bench.method import Batch, Clock, Method
from bench.randomness import generator

METHODS = registry.methods()


COUNTS = np.array([40, 5, 12, 1, 90, 3, 24, 7, 60, 2])  # unsorted on purpose


SMALL, IMAGENET_STYLE = ("resnet8_cifar", 16), ("resnet10t", 32)


VIT = BackboneChoice(
    name="vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 96}
)


def cell_of(name: str, backbone: str = "resnet8_cifar", epochs: int = 10, **params: Any) -> Cell:
    """A cell of one method; one that needs a parent starts from its usual one, with the same `params`."""
    entry = registry.find(name)
    parent = None
    if entry.build.needs_parent:
        known = registry.find(entry.build.usual_parent).hyperparameters.model_fields
        shared = {key: value for key, value in params.items() if key in known}
        parent = cell_of(entry.build.usual_parent, backbone, **shared)
    return Cell(
        method=entry.choose(**params),
        dataset=DataSet(name="fake", source="digits"),
        imbalance_factor=45.0,
        backbone=VIT if entry.build.needs_backbone else BackboneChoice(name=backbone),
        protocol=Protocol(epochs=epochs),
        parent=parent,
    )


def batch_for(method: Method, labels: list[int], side: int, seed: int = 0) -> Batch:
    """A batch of class-coloured noise with every view, draw and extra batch the method declares."""
    rng = generator("batch", seed)
    size = len(labels)
    y = torch.tensor(labels)
    draws = {k: torch.from_numpy(v) for k, v in method.draws(rng, size).items()}
    tone = torch.linspace(-1, 1, max(method.num_classes, 2))[y].reshape(-1, 1, 1, 1)
    views = []
    for view in method.views:
        if view.policy != "main":
            policy(view.policy)  # a view names a policy that exists
        pixels = view.side(side)
        noise = torch.from_numpy(rng.normal(0, 0.3, (size, 3, pixels, pixels))).float()
        views.append(noise + tone)
    extra = Batch(tuple(views), y.flip(0), torch.arange(size)) if method.extra_sampler else None
    return Batch(tuple(views), y, torch.arange(size), draws, extra)


def step(method: Method, optimizer: torch.optim.Optimizer | None, batch: Batch, clock: Clock) -> float:
    """One step as the training loop makes it."""
    method.before_step(clock, batch)
    method.zero_grad()
    loss = method.loss(batch)
    assert loss.shape == ()
    loss.backward()
    if optimizer is not None:
        optimizer.step()
    method.after_step(clock, batch)
    return loss.item()
