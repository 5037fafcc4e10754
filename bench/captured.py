"""How a piece of a step is carried out: at once, or recorded in a CUDA graph and replayed from then on.

A replay makes the device do again what it did, with the same tensors, and asks nothing of Python. So a piece
reads and writes tensors that stay where they are, waits for no number from the device, and takes none from
the host but those that never change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from bench import ranks
from bench.errors import BenchError, memory_ran_out

T = TypeVar("T")

#: Lists the tensors that a piece writes to and reads again later; some of them it may make itself.
Moves = Callable[[], Iterable[Tensor]]

#: Before it is recorded, a piece is carried out so often: libraries choose and load their kernels.
WARM_UP = 3


class Play(Protocol):
    """Carries out a piece, `function`, known by its `key`, that moves the tensors `moves`.

    What it returns holds until another piece is carried out, or if it is `lasting`, until the same one is.
    """

    def __call__(
        self, key: Hashable, function: Callable[[], T], moves: Moves, *, lasting: bool = False
    ) -> T: ...


def at_once(key: Hashable, function: Callable[[], T], moves: Moves, *, lasting: bool = False) -> T:
    """Carry it out, as nothing but a call."""
    return function()


def play_for(mode: str, device: torch.device) -> Play:
    """Return what suits a cell's mode and the device; several ranks are not captured."""
    captured = mode == "fast" and device.type == "cuda" and ranks.world() == 1
    return Graphs() if captured else at_once


class Graphs:
    """Records each piece when it is first wanted, and replays it; results lie where they lay before.

    The current stream must not be the default one. Graphs share a pool of memory, so they may only be
    replayed one after the other, and what outlives a replay must be a result or one of the `moves`. Those
    whose results are `lasting` have a second pool: a graph recorded before them would write over these.

    A recording that fails leaves torch's allocator believing that it goes on (up to torch 2.12 at least), so
    that no other succeeds in the process: `spoilt`. One that runs out of memory ends well, but later torch
    takes the stream's cuBLAS workspace away with it, to which other graphs hold on: all are dropped.
    """

    spoilt: ClassVar[bool] = False

    def __init__(self) -> None:
        self._new_pools()
        self.recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, object]] = {}

    def _new_pools(self) -> None:
        self.pools = {lasting: torch.cuda.graph_pool_handle() for lasting in (False, True)}

    def __call__(self, key: Hashable, function: Callable[[], T], moves: Moves, *, lasting: bool = False) -> T:
        if key not in self.recorded:
            warm_up(function, moves)
            self.recorded[key] = self._record(function, self.pools[lasting])
            torch.cuda.manual_seed(torch.cuda.initial_seed())  # the warm-up drew from it
        graph, result = self.recorded[key]
        graph.replay()
        return result  # type: ignore[return-value]

    def _record(self, function: Callable[[], object], pool: Any) -> tuple[torch.cuda.CUDAGraph, object]:
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads may go on: one that pins memory for another run's batches, say
            with torch.cuda.graph(
                graph, pool, torch.cuda.current_stream(), capture_error_mode="thread_local"
            ):
                made = function()
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
                "let the method say `capturable = False`, or use mode: exact"
            ) from error
        return graph, made


def _first(error: BaseException) -> BaseException:
    """Return what went wrong first: the end of a recording complains of it once more."""
    while error.__context__ is not None:
        error = error.__context__
    return error


@torch.no_grad()
def warm_up(function: Callable[[], object], moves: Moves) -> None:
    """Carry a piece out a few times and each time put back what it moved, so that it has not happened.

    What it made anew, as an optimiser makes its state in its first step, becomes zero, as it was then.
    """
    before = {id(tensor): tensor.clone() for tensor in moves()}
    for _ in range(WARM_UP):
        with torch.enable_grad():
            function()
        for tensor in moves():
            if id(tensor) in before:
                tensor.copy_(before[id(tensor)])
            else:
                tensor.zero_()
