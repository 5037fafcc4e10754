"""Several runs in one process, a step each in turn: so they share a GPU that one of them would leave idle.

Nothing here imports torch before a GPU is wanted.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from bench.errors import memory_ran_out

Name = TypeVar("Name", bound=Hashable)


class Turns(Generic[Name]):
    """Runs that take turns; on CUDA each has a stream of its own, so that the GPU works for all at a time."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.runs: dict[Name, tuple[Iterator[object], AbstractContextManager[object]]] = {}
        self.free: list[AbstractContextManager[object]] = []

    def add(self, name: Name, run: Iterator[object]) -> None:
        """Let a run, which yields after each step, take part from the next turn on."""
        self.runs[name] = run, self.free.pop() if self.free else _own_stream(self.device)

    def turn(self) -> Iterator[tuple[Name, Exception | None]]:
        """Let each run make a step, and yield those that ended, with what they raised."""
        for name, (run, stream) in list(self.runs.items()):
            try:
                with stream:
                    next(run)
            except StopIteration:
                error = None
            except Exception as raised:
                error = raised
            else:
                continue
            del self.runs[name], run
            # Torch has 32 streams, handed out in turn: the 33rd would be one that a run may still use. The
            # graphs of the run that ended go first: later torch takes a stream's workspace away with them.
            gc.collect()
            if error is None:  # else it holds what the run had
                self.free.append(stream)
            yield name, error

    def take(self) -> Iterator[tuple[Name, Exception | None]]:
        """Go on until all have ended, yielding them as they do."""
        while self.runs:
            yield from self.turn()


def _own_stream(device: str) -> AbstractContextManager[object]:
    if device == "cpu":
        return nullcontext()
    import torch

    if not torch.cuda.is_available():
        return nullcontext()  # the run itself will say so
    return torch.cuda.stream(torch.cuda.Stream())


def is_own_fault(error: Exception) -> bool:
    """Tell whether a run has only itself to blame: memory was not short, and the GPU still answers."""
    return not memory_ran_out(error) and gpu_answers()


def gpu_answers() -> bool:
    """Tell whether the GPU, if one is used, still works in this process: after some faults nothing does."""
    import torch

    from bench.captured import Graphs

    if Graphs.spoilt:
        return False
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
