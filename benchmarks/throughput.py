"""Measures images per second in training: the loop of the papers' repositories and this one.

ResNet-32 on photographs of 32x32 pixels, 100 classes, batches of 128, for three kinds of work. On a CPU ours
is one single-threaded process per core, as in the launcher; the papers' is one process with torch's default
threads and a worker per core (default), or with one worker and a thread for each other core (tuned). On a GPU
ours is 1, 2, 4 and 8 runs at once in one process; on a CPU its bound is measured too, the step alone on the
same batch. All sides alternate in rounds, so that other load affects all of them; figures are medians.

    python benchmarks/throughput.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from common import CORES, CUDA, load_average, long_tail, make_cell, official, write

from bench.data.feed.memory import MemoryLoader
from bench.launch.process import ENVIRONMENT
from bench.randomness import generator
from bench.rundir import RunDir
from bench.train import loop
from bench.train.build import build
from bench.train.interleave import Turns
from bench.train.precision import keep_float32, wants_bfloat16

#: Kinds of work: a method and its main augmentation; BCL has three views.
WORK = {
    "crop_flip": ("ce", "crop_flip"),
    "autoaugment_cutout": ("ce", "autoaugment_cutout"),
    "three views": ("bcl", "autoaugment_cutout"),
}
CLASSES = 100


@dataclass(frozen=True)
class Side:
    """One side: the number of processes, and the work of each."""

    name: str
    threads: int
    processes: int = 1
    workers: int | None = None  # of the papers' loop; None: ours
    runs: int = 1
    bfloat16: bool = True
    bound: bool = False  # only the step, on the same batch: an upper bound for any loop


def sides() -> list[Side]:
    """Return the sides that can be compared on this machine."""
    if CUDA:
        theirs = [Side("papers' loop", CORES, workers=min(CORES, 8))]
        return theirs + [Side(f"ours, {runs} at once", 1, runs=runs) for runs in (1, 2, 4, 8)]
    found = [Side("papers' loop, default", CORES, workers=CORES)]
    if CORES > 1:
        found.append(Side("papers' loop, tuned", CORES - 1, workers=1))
    if wants_bfloat16("fast", "cpu"):
        found.append(Side("ours, float32", 1, processes=CORES, bfloat16=False))
        found.append(Side("its step alone, float32", 1, processes=CORES, bfloat16=False, bound=True))
    ours = Side("ours", 1, processes=CORES)
    return [*found, ours, replace(ours, name="its step alone", bound=True)]


# -- in the measured process ----------------------------------------------------------------------------
def steps(side: Side, work: str, images: int, scratch: Path) -> Iterator[int]:
    """Yield the images of each step."""
    method, augmentation = WORK[work]
    split, device = long_tail(images, CLASSES), "cuda" if CUDA else "cpu"
    if side.workers is not None:
        cell = make_cell(method, augmentation)
        yield from (count for _, count in official(cell, split, side.workers, device))
        return
    keep_float32()
    if not side.bfloat16:
        loop.wants_bfloat16 = lambda mode, device: False
    turns = Turns[int](device)
    for seed in range(side.runs):
        never = {"evaluate_every": 200}
        cell = make_cell(method, augmentation, seed=seed, protocol=never)
        built = build(cell, split.class_counts).to(device)
        loader = MemoryLoader(split, built.views, cell, device)
        run = RunDir(scratch / f"{os.getpid()}", cell.run_id)
        training = loop.Training(cell, built, loader, run, device, float("inf"))
        turns.add(seed, same_step(training) if side.bound else training.steps(lambda line: None))
        if CUDA:
            torch.cuda.synchronize()
    while True:
        for _, error in turns.turn():
            raise error or RuntimeError("200 epochs are over; give it less time")
        yield side.runs * cell.protocol.batch_size


def same_step(training: loop.Training) -> Iterator[None]:
    """Learn from the first batch again and again."""
    method, loader = training.method, training.loader
    method.train()
    batch = next(loader.epoch(0, 1, "shuffle", method.draws(generator("method", 0, 0), loader.size)))
    while True:
        training._learn(batch, 1)
        yield


def serve(side: Side, work: str, images: int, scratch: Path, pipe: Connection) -> None:
    """Train for each number of seconds that arrives, and answer with the images per second."""
    torch.set_num_threads(side.threads)
    under_way = steps(side, work, images, scratch)
    while (seconds := pipe.recv()) is not None:
        for _ in range(1 + 2 * (side.workers or 0)):  # without those that workers have prepared
            next(under_way)
        wait()
        started, done = time.monotonic(), 0
        while time.monotonic() - started < seconds:
            done += next(under_way)
        wait()
        pipe.send(done / (time.monotonic() - started))


def wait() -> None:
    """Let the GPU finish."""
    if CUDA:
        torch.cuda.synchronize()


# -- the measuring process ------------------------------------------------------------------------------
class Team:
    """The processes of one side, which wait for requests to train."""

    def __init__(self, side: Side, work: str, images: int, scratch: Path) -> None:
        context, before = multiprocessing.get_context("spawn"), dict(os.environ)
        if side.workers is None:
            os.environ |= ENVIRONMENT  # as the launcher starts them
        self.pipes, self.processes = [], []
        for _ in range(side.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(side, work, images, scratch, theirs))
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        os.environ.clear()
        os.environ |= before

    def rate(self, seconds: float) -> float:
        """Return the images per second of all its processes together."""
        for pipe in self.pipes:
            pipe.send(seconds)
        return sum(pipe.recv() for pipe in self.pipes)

    def end(self) -> None:
        """Let the processes end."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def measure(work: str, images: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Measure all sides in one kind of work."""
    with tempfile.TemporaryDirectory() as scratch:
        teams = {side.name: Team(side, work, images, Path(scratch)) for side in sides()}
        for team in teams.values():
            team.rate(0)  # one after another, for the set-up of the first step
        rates = [{name: team.rate(seconds) for name, team in teams.items()} for _ in range(rounds)]
        for team in teams.values():
            team.end()
    medians = {name: statistics.median(round_[name] for round_ in rates) for name in teams}
    best = max(rate for name, rate in medians.items() if name.startswith("papers"))
    return [
        {
            "work": work,
            "side": name,
            "images_per_second": round(rate, 1),
            "over_best_of_papers": round(rate / best, 2),
            "rounds": [round(round_[name], 1) for round_ in rates],
        }
        for name, rate in medians.items()
    ]


def main() -> None:
    """Measure, print a table and write it as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--work", choices=WORK, nargs="*", default=list(WORK))
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each side in each round")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--images", type=int, default=10_847, help="in an epoch")
    arguments.add_argument("--output", type=Path)
    options = arguments.parse_args()
    load, rows = [load_average()], []
    print(f"{CORES} cores, load average {load[0]}; ResNet-32, images per second, medians of {options.rounds}")
    for work in options.work:
        for row in measure(work, options.images, options.seconds, options.rounds):
            rows.append(row)
            rate, ratio = row["images_per_second"], row["over_best_of_papers"]
            print(f"{work:20}{row['side']:24}{rate:10}  x{ratio:5}  {row['rounds']}", flush=True)
    write("throughput", options, rows, [*load, load_average()])


if __name__ == "__main__":
    main()
