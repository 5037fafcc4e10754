"""Where a batch does not fit into the memory of a GPU: the same step, made of smaller pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

import torch
from torch import Tensor

from bench.cell import Cell
from bench.method import Batch, Method


def divisible(method: Method) -> bool:
    """Tell whether a method's class itself, not one that it inherits from, lets its batches be cut."""
    return "mean_over_images" in vars(type(method)) and method.mean_over_images()


def pieces(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into so many pieces of about one size, but into none of a single image."""
    size = len(batch.labels)
    count = max(1, min(count, size // 2))
    for i in range(count):
        rows = slice(size * i // count, size * (i + 1) // count)
        yield batch if count == 1 else batch.map(itemgetter(rows))


class Snapshot:
    """What is in some tensors, kept on the host, to be put back if a step fails half-way."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.kept = [(tensor, tensor.detach().to("cpu", copy=True)) for tensor in tensors]

    @torch.no_grad()
    def put_back(self, moved: Sequence[Tensor]) -> None:
        """Restore all; what was `moved` and is new, as an optimiser's state, becomes zero."""
        known = {id(tensor) for tensor, _ in self.kept}
        for tensor in moved:
            if id(tensor) not in known:
                tensor.zero_()
        for tensor, before in self.kept:
            tensor.copy_(before)


def remedy(cell: Cell, ranks: int) -> str:
    """Say what a user can do about a cell that memory is too short for."""
    ways = [
        f"lower protocol.batch_size ({cell.protocol.batch_size}), and protocol.optimizer.lr with it",
        f"run it over {'more' if ranks > 1 else 'several'} GPUs by torchrun",
    ]
    if cell.mode == "exact":
        ways.append("use mode: fast")
    return "memory ran out: " + ", or ".join(ways)
