"""A queue of past projections for each class (BCCL)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassQueue(nn.Module):
    """The last `size` projections of each class, (C, size, D), oldest first, and how many there are (C,).

    quirk: projections of a class that first comes after the first step are stored twice, as in BCCL's code.
    """

    rows: Tensor
    counts: Tensor
    begun: Tensor

    def __init__(self, classes: int, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("rows", torch.zeros(classes, size, dim))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("begun", torch.tensor(False))

    @torch.no_grad()
    def add(self, projections: Tensor, labels: Tensor) -> None:
        """Append projections (N, D) to the queues of their labels (N,), dropping the oldest."""
        for c in labels.unique().tolist():
            new = projections[labels == c].to(self.rows)
            kept = self.rows[c, : self.counts[c]]
            if self.begun and not len(kept):
                kept = new
            whole = torch.cat([kept, new])[-self.size :]
            self.rows[c, : len(whole)] = whole
            self.counts[c] = len(whole)
        self.begun.fill_(True)

    def filled(self) -> Tensor:
        """Tell which rows are in use, (C, size) bool."""
        return torch.arange(self.size, device=self.counts.device) < self.counts[:, None]

    def pick(self, order: Tensor, count: int) -> Tensor:
        """Return `count` distinct rows of each class, (C, count, D), chosen by random keys (size,).

        A class with fewer rows is filled up with zeros (BCCL's code stops with an error there).
        """
        filled = self.filled()
        keys = torch.where(filled, order, 2.0)
        chosen = keys.argsort(dim=1)[:, :count, None]
        picked = self.rows.gather(1, chosen.expand(-1, -1, self.rows.shape[2]))
        return picked * filled.gather(1, chosen[:, :, 0])[:, :, None]
