"""A CUDA graph for machines without CUDA: it records the tensor operations of a piece and does them again.

As in a graph, a replay runs no Python, works on the same tensors, and knows of the host only the numbers of
the recording. What a capture would refuse, for it waits for the device or copies from the host, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.captured import Changed, warm_up

aten = torch.ops.aten

#: Needs a number from the device, or brings one from the host.
WAITS = {
    aten._local_scalar_dense.default,
    aten.lift_fresh.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
RANDOM = {aten.rand.default, aten.randn.default, aten.randperm.default, aten.bernoulli.default}


class Tape(TorchDispatchMode):
    """What was done, in order: operation, arguments, results."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WAITS or func in RANDOM or _picks_by_mask(func, args):
            raise RuntimeError(f"cannot be captured: {func}")
        out = func(*args, **kwargs)
        self.done.append((func, args, kwargs, tree_leaves(out)))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self.done:
            for there, new in zip(results, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(there, Tensor) and there is not new:
                    there.copy_(new)


def _picks_by_mask(func: Any, args: Any) -> bool:
    if func not in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


class Tapes:
    """Does for tapes what `bench.captured.Graphs` does for graphs."""

    def __init__(self) -> None:
        self.recorded: dict[Hashable, tuple[Tape, Any]] = {}

    def __call__(
        self, key: Hashable, function: Callable[[], Any], changed: Changed, *, lasting: bool = False
    ) -> Any:
        if key not in self.recorded:
            warm_up(function, changed)
            before = [(tensor, tensor.clone()) for tensor in changed()]
            with Tape() as tape:
                made = function()
            with torch.no_grad():  # a capture does nothing yet
                for tensor, value in before:
                    tensor.copy_(value)
            self.recorded[key] = tape, made
        tape, result = self.recorded[key]
        tape.replay()
        return result
