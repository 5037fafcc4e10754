"""Calls a part of a step directly, or records it in a CUDA graph and replays it.

A replay repeats the same operations on the same memory without Python. So the function must use tensors that
stay where they are, read no number from the device, and take none from the host except constants.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from bench import ranks
from bench.errors import BenchError, memory_ran_out

T = TypeVar("T")

#: Lists the tensors that a function changes and that are read later; it may create some of them itself.
Changed = Callable[[], Iterable[Tensor]]

#: Calls before a recording, in which libraries choose and load their kernels.
WARM_UP = 3


class Play(Protocol):
    """Calls or replays `function`, identified by `key`, which changes the tensors `changed`.

    The result is valid until another function is played, or if it is `lasting`, until the same one is.
    """

    def __call__(
        self, key: Hashable, function: Callable[[], T], changed: Changed, *, lasting: bool = False
    ) -> T: ...


def at_once(key: Hashable, function: Callable[[], T], changed: Changed, *, lasting: bool = False) -> T:
    """Call the function."""
    return function()


def play_for(mode: str, device: torch.device) -> Play:
    """Return how a cell's mode is played on a device; with several ranks nothing is captured."""
    captured = mode == "fast" and device.type == "cuda" and ranks.world() == 1
    return Graphs() if captured else at_once


class Graphs:
    """Records each function at its first call and replays it later; results stay at the same addresses.

    The current stream must not be the default one. Graphs share a memory pool, so they must be replayed one
    after another, and only results and `changed` tensors survive the next replay. Graphs with `lasting`
    results use a second pool, as a graph recorded earlier would overwrite them.

    After a failed recording torch's allocator believes that it still records (at least up to torch 2.12), so
    that no other succeeds in the process: `spoilt`. A recording that runs out of memory ends cleanly, but
    later torch frees the stream's cuBLAS workspace, which other graphs use, so all graphs are dropped.
    """

    spoilt: ClassVar[bool] = False

    def __init__(self) -> None:
        self._new_pools()
        self.recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, object]] = {}

    def _new_pools(self) -> None:
        self.pools = {lasting: torch.cuda.graph_pool_handle() for lasting in (False, True)}

    def __call__(
        self, key: Hashable, function: Callable[[], T], changed: Changed, *, lasting: bool = False
    ) -> T:
        if key not in self.recorded:
            warm_up(function, changed)
            self.recorded[key] = self._record(function, self.pools[lasting])
            torch.cuda.manual_seed(torch.cuda.initial_seed())  # the warm-up drew from it
        graph, result = self.recorded[key]
        graph.replay()
        return result  # type: ignore[return-value]

    def _record(self, function: Callable[[], object], pool: Any) -> tuple[torch.cuda.CUDAGraph, object]:
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads may use CUDA meanwhile, for instance to pin memory for another run's batches
            with torch.cuda.graph(
                graph, pool, torch.cuda.current_stream(), capture_error_mode="thread_local"
            ):
                result = function()
        except torch.OutOfMemoryError:
            self.recorded.clear()
            self._new_pools()
            raise
        except RuntimeError as error:
            Graphs.spoilt = True
            if memory_ran_out(error):
                raise
            reason = str(_first(error)).splitlines()[0]
            raise BenchError(
                f"a step could not be captured in a CUDA graph ({reason}); "
                "set `capturable = False` in the method, or use mode: exact"
            ) from error
        return graph, result


def _first(error: BaseException) -> BaseException:
    """Return the first error: ending the recording raises another."""
    while error.__context__ is not None:
        error = error.__context__
    return error


@torch.no_grad()
def warm_up(function: Callable[[], object], changed: Changed) -> None:
    """Call a function a few times, and undo its changes each time.

    Tensors that it creates, such as an optimiser's state in the first step, become zero.
    """
    before = {id(tensor): tensor.clone() for tensor in changed()}
    for _ in range(WARM_UP):
        with torch.enable_grad():
            function()
        for tensor in changed():
            if id(tensor) in before:
                tensor.copy_(before[id(tensor)])
            else:
                tensor.zero_()
