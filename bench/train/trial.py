"""How many runs a GPU should run at once: a trial of a few seconds with copies of one run."""

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
from bench.train.interleave import Turns
from bench.train.loop import Training
from bench.train.precision import keep_float32

MOST = 16
#: The speed-up that twice as many runs must reach together, as each of them then ends later.
GAIN = 1.1
#: Steps of each run before and during the measurement; the first ones record graphs.
WARM_UP, TIMED = 8, 40
#: Share of the free memory that stays free, because the runs of a grid differ.
SPARE = 0.2


def runs_at_once(cell: Cell, data: Path, device: str) -> int:
    """Find how many runs like `cell` the device should run at once; nothing of the trial is kept."""
    _free_memory(device)  # of earlier runs
    with tempfile.TemporaryDirectory() as scratch:
        runs = most_that_pay(Trial(cell, data, device, Path(scratch)).rate)
    _free_memory(device)
    return runs


def most_that_pay(rate: Callable[[int], float | None]) -> int:
    """Double the number of runs as long as their joint `rate` rises enough; it is None if they do not fit."""
    runs, best = 1, rate(1) or 0.0
    while 2 * runs <= MOST:
        more = rate(2 * runs)
        if more is None or more < GAIN * best:
            break
        runs, best = 2 * runs, more
    return runs


class Trial:
    """Copies of a run that train to measure their speed."""

    def __init__(self, cell: Cell, data: Path, device: str, scratch: Path) -> None:
        self.split = load(cell.dataset, cell.imbalance_factor, data, cell.protocol.subsample)
        # a smaller last batch would be recorded during the measurement
        whole = cell.protocol.drop_last or cell.protocol.batch_size <= len(self.split.labels)
        endless = {"epochs": 10**6, "evaluate_every": 10**6, "drop_last": whole}
        protocol = cell.protocol.model_copy(update=endless)
        self.cell, self.device = cell.model_copy(update={"protocol": protocol}), device
        self.scratch, self.turns, self.free = scratch, Turns[int](device), _available(device)
        self.steps = 0  # so far, of all runs
        keep_float32()

    def rate(self, runs: int) -> float | None:
        """Return the steps per second of so many runs together, or None if memory is short."""
        present = len(self.turns.runs)
        if present and runs / present * (self.free - _available(self.device)) > (1 - SPARE) * self.free:
            return None
        try:
            for number in range(present, runs):
                self.turns.add(number, self._counted(self._evaluate_and_train(self._training(number))))
            self._run(runs * WARM_UP)
            before, started = self.steps, time.monotonic()
            self._run(runs * TIMED)
        except RuntimeError as error:
            if not memory_ran_out(error):
                raise
            return None
        return (self.steps - before) / (time.monotonic() - started)

    def _training(self, number: int) -> Training:
        method = build(self.cell, self.split.epoch_counts).to(self.device)
        loader = loader_for(
            self.split, method.views, self.cell, self.device, extra_sampler=method.extra_sampler
        )
        method.before_training(loader.train_eval())
        run = RunDir(self.scratch, f"trial-{number}")
        training = Training(self.cell, method, loader, run, self.device, float("inf"))
        _wait(self.device)  # it was built on another stream than it runs on
        return training

    def _evaluate_and_train(self, training: Training) -> Iterator[Clock]:
        """Evaluate once, to include the memory that this needs, and then train."""
        training.test_logits()
        yield from training.steps(lambda line: None)

    def _counted(self, steps: Iterator[Clock]) -> Iterator[Clock]:
        """Count steps; while the device catches up, the last clock is repeated."""
        last = -1
        for clock in steps:
            self.steps += clock.step - last
            last = clock.step
            yield clock

    def _run(self, steps: int) -> None:
        enough = self.steps + steps
        while self.steps < enough:
            for _, error in self.turns.turn():
                raise error or RuntimeError("a trial does not end")
        _wait(self.device)


def _free_memory(device: str) -> None:
    gc.collect()
    if device == "cuda":
        if hasattr(torch._C, "_cuda_clearCublasWorkspaces"):  # 32 MiB per thread and stream
            torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _available(device: str) -> float:
    return float(torch.cuda.mem_get_info()[0]) if device == "cuda" else float("inf")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
