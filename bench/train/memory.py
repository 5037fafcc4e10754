"""Steps whose batch does not fit into GPU memory, made in smaller pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

import torch
from torch import Tensor

from bench.cell import Cell
from bench.method import Batch, Method


def divisible(method: Method) -> bool:
    """Whether a method's class itself, not a base, allows its batches to be divided."""
    return "mean_over_images" in vars(type(method)) and method.mean_over_images()


def pieces(batch: Batch, count: int) -> Iterator[Batch]:
    """Divide a batch into `count` pieces of similar size, or fewer so that none has a single image."""
    size = len(batch.labels)
    count = max(1, min(count, size // 2))
    for i in range(count):
        rows = slice(size * i // count, size * (i + 1) // count)
        yield batch if count == 1 else batch.map(itemgetter(rows))


class Snapshot:
    """A copy of tensors on the host, to be restored if a step fails."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.kept = [(tensor, tensor.detach().to("cpu", copy=True)) for tensor in tensors]

    @torch.no_grad()
    def restore(self, changed: Sequence[Tensor]) -> None:
        """Restore all; `changed` tensors that are new, such as an optimiser's state, become zero."""
        known = {id(tensor) for tensor, _ in self.kept}
        for tensor in changed:
            if id(tensor) not in known:
                tensor.zero_()
        for tensor, before in self.kept:
            tensor.copy_(before)


def remedy(cell: Cell, ranks: int) -> str:
    """Return what a user can do about a cell that needs too much memory."""
    ways = [
        f"lower protocol.batch_size ({cell.protocol.batch_size}), and protocol.optimizer.lr with it",
        f"run it over {'more' if ranks > 1 else 'several'} GPUs by torchrun",
    ]
    if cell.mode == "exact":
        ways.append("use mode: fast")
    return "memory ran out: " + ", or ".join(ways)
