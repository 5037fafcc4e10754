"""Several runs in one process, a step each in turn, so that they share a GPU that one would leave idle.

Nothing here imports torch before a GPU is used.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from bench.errors import memory_ran_out

Name = TypeVar("Name", bound=Hashable)


class Turns(Generic[Name]):
    """Runs that take turns; on CUDA each has its own stream, so that the GPU works on all at once."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.runs: dict[Name, tuple[Iterator[object], AbstractContextManager[object]]] = {}
        self.free: list[AbstractContextManager[object]] = []

    def add(self, name: Name, run: Iterator[object]) -> None:
        """Add a run, which yields after each step, from the next turn on."""
        self.runs[name] = run, self.free.pop() if self.free else _own_stream(self.device)

    def turn(self) -> Iterator[tuple[Name, Exception | None]]:
        """Make a step of each run, and yield those that ended, with the error if there was one."""
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
            # Streams are reused: torch has 32 and hands them out in turn, so the 33rd may be in use. The
            # graphs of the run that ended are freed first, because later torch frees a stream's workspace
            # with them.
            gc.collect()
            if error is None:  # else its traceback holds the run's tensors
                self.free.append(stream)
            yield name, error

    def take(self) -> Iterator[tuple[Name, Exception | None]]:
        """Continue until all have ended, yielding each as it ends."""
        while self.runs:
            yield from self.turn()


def _own_stream(device: str) -> AbstractContextManager[object]:
    if device == "cpu":
        return nullcontext()
    import torch

    if not torch.cuda.is_available():
        return nullcontext()  # the run itself will fail with that
    return torch.cuda.stream(torch.cuda.Stream())


def is_own_fault(error: Exception) -> bool:
    """Whether an error is the run's own fault: memory was not short, and the GPU still works."""
    return not memory_ran_out(error) and gpu_answers()


def gpu_answers() -> bool:
    """Whether the GPU, if one is used, still works in this process; after some faults nothing does."""
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
