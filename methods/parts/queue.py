"""The queue of keys and labels of earlier batches in contrastive methods (MoCo)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """A ring of the last `size` unit-norm keys, (*lead, size, D), and their labels, (size,).

    `lead` is (K,) if each of K experts has its own keys for the same images. The queue starts full of random
    directions with random labels, as in DSCL. A step's keys are added in two parts: the loss, which may be
    captured and must not see them in the queue yet, stages them; after the step they enter.
    """

    keys: Tensor
    labels: Tensor
    position: Tensor
    staged: Tensor

    def __init__(self, size: int, features: int, classes: int, lead: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("keys", F.normalize(torch.randn(*lead, size, features), dim=-1))
        self.register_buffer("labels", torch.randint(classes, (size,)))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("staged", torch.zeros_like(self.keys), persistent=False)

    @torch.no_grad()
    def stage(self, keys: Tensor) -> None:
        """Keep a step's keys (*lead, B, D) for `enqueue`, at most the last `size`."""
        keys = keys[..., -self.size :, :]
        self.staged[..., : keys.shape[-2], :] = keys

    @torch.no_grad()
    def enqueue(self, labels: Tensor) -> None:
        """Replace the oldest keys by the staged ones, with labels (B,)."""
        labels = labels[-self.size :]
        rows = (self.position + torch.arange(len(labels), device=labels.device)) % self.size
        self.keys.index_copy_(-2, rows, self.staged[..., : len(labels), :])
        self.labels.index_copy_(0, rows, labels)
        self.position.add_(len(labels)).remainder_(self.size)

    def class_means(self, classes: int) -> tuple[Tensor, Tensor]:
        """Return each class's mean direction, (*lead, C, D), and whether it has keys, (C,) bool."""
        sums = self.keys.new_zeros(*self.keys.shape[:-2], classes, self.keys.shape[-1])
        means = F.normalize(sums.index_add(-2, self.labels, self.keys), dim=-1)
        nowhere = torch.zeros(classes, dtype=torch.bool, device=self.labels.device)
        return means, nowhere.index_fill(0, self.labels, True)
