"""How many runs a GPU takes at once: tried with copies of one run, for a few seconds."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench.cell import Cell
from bench.data.feed.streaming import loader_for
from bench.data.split.load import load
from bench.errors import memory_ran_out
from bench.method import Clock
from bench.rundir import RunDir
from bench.train.build import build
from bench.train.execution import Execution
from bench.train.interleave import Turns
from bench.train.loop import Training
from bench.train.precision import keep_float32

MOST = 16
#: More runs at once must gain that much together: each of them ends later.
GAIN = 1.1
#: Steps of each run before and while time is taken; the first ones record graphs.
WARM_UP, TIMED = 8, 40
#: Memory, as a share of what was free, that is left alone: runs of a grid are not all alike.
SPARE = 0.2


def runs_at_once(cell: Cell, data: Path, device: str) -> int:
    """Try how many runs like `cell` the device takes at once; nothing of the trial is kept."""
    _let_go(device)  # of what runs before it used
    with tempfile.TemporaryDirectory() as scratch:
        places = most_that_pay(Trial(cell, data, device, Path(scratch)).rate)
    _let_go(device)
    return places


def most_that_pay(rate: Callable[[int], float | None]) -> int:
    """Double the number of runs as long as `rate`, of all together, gains; None is where they do not fit."""
    places, best = 1, rate(1) or 0.0
    while 2 * places <= MOST:
        more = rate(2 * places)
        if more is None or more < GAIN * best:
            break
        places, best = 2 * places, more
    return places


class Trial:
    """Copies of a run that train for the clock alone."""

    def __init__(
        self, cell: Cell, data: Path, device: str, scratch: Path, execution: Execution | None = None
    ) -> None:
        self.split = load(cell.dataset, cell.imbalance_factor, data)
        # a smaller last batch would be recorded while time is taken
        whole = cell.protocol.drop_last or cell.protocol.batch_size <= len(self.split.labels)
        endless = {"epochs": 10**6, "evaluate_every": 10**6, "drop_last": whole}
        protocol = cell.protocol.model_copy(update=endless)
        self.cell, self.device = cell.model_copy(update={"protocol": protocol}), device
        self.scratch, self.turns, self.free = scratch, Turns[int](device), _free(device)
        self.made = 0  # steps so far, of all runs
        self.execution = Execution.here() if execution is None else execution
        keep_float32(self.execution.benchmark)

    def rate(self, runs: int) -> float | None:
        """Return the steps per second of so many runs together, or None where memory is short."""
        there = len(self.turns.runs)
        if there and runs / there * (self.free - _free(self.device)) > (1 - SPARE) * self.free:
            return None
        try:
            for number in range(there, runs):
                self.turns.add(number, self._counted(self._steps(self._training(number))))
            self._make(runs * WARM_UP)
            before, started = self.made, time.monotonic()
            self._make(runs * TIMED)
        except RuntimeError as error:
            if not memory_ran_out(error):
                raise
            return None
        return (self.made - before) / (time.monotonic() - started)

    def _training(self, number: int) -> Training:
        method = build(self.cell, self.split.epoch_counts).to(self.device)
        loader = loader_for(
            self.split, method.views, self.cell, self.device, extra_sampler=method.extra_sampler
        )
        method.before_training(loader.train_eval())
        run = RunDir(self.scratch, f"trial-{number}")
        training = Training(
            self.cell, method, loader, run, self.device, float("inf"), execution=self.execution
        )
        _wait(self.device)  # it was made on another stream than it runs on
        return training

    def _steps(self, training: Training) -> Iterator[Clock]:
        """Score once, for the memory that this takes, and then train."""
        training.score()
        yield from training.steps(lambda line: None)

    def _counted(self, steps: Iterator[Clock]) -> Iterator[Clock]:
        """Count steps; while the device catches up, the clock of the last one comes again."""
        last = -1
        for clock in steps:
            self.made += clock.step - last
            last = clock.step
            yield clock

    def _make(self, steps: int) -> None:
        enough = self.made + steps
        while self.made < enough:
            for _, error in self.turns.turn():
                raise error or RuntimeError("a trial does not end")
        _wait(self.device)


def _let_go(device: str) -> None:
    gc.collect()
    if device == "cuda":
        if hasattr(torch._C, "_cuda_clearCublasWorkspaces"):  # 32 MiB a thread and stream; no graph is alive
            torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _free(device: str) -> float:
    return float(torch.cuda.mem_get_info()[0]) if device == "cuda" else float("inf")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
