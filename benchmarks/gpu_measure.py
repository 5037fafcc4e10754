"""Measures the speed of runs on this device, alone and together, of their parts, and of a compiled run.

It is a part of `benchmarks/gpu.py`, in its own process; each figure is written at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import long_tail, official

from bench.cell import BackboneChoice, Cell, Optimizer, Protocol
from bench.data.sets.catalogue import DATASETS
from bench.registry import find
from bench.train.compiled import COMPILE, refuse
from bench.train.interleave import Turns
from bench.train.trial import Trial

RUNS = (1, 2, 4, 8, 16)
ROUNDS = 3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: Writes a figure: its name and its values.
Note = Callable[..., None]


class Measure:
    """The measurements, with their data and output file."""

    def __init__(self, file: Path, data: Path, dataset: str, tiny: bool) -> None:
        self.file, self.data, self.dataset, self.tiny = file, data, dataset, tiny
        self.rows: list[dict[str, Any]] = []

    def note(self, what: str, **figures: Any) -> None:
        """Write a figure."""
        self.rows.append({"what": what, **figures})
        print(self.rows[-1], flush=True)
        self.file.write_text(json.dumps(self.rows, indent=1) + "\n")

    def attempt(self, name: str, measuring: Callable[[], None]) -> None:
        """Measure; a failure is noted and does not stop the rest."""
        try:
            measuring()
        except Exception as error:
            self.note(name, failed=repr(error)[:500])

    def cell(self, method: str, augmentation: str, batch: int = 128) -> Cell:
        """Return a cell like the papers', or a small one."""
        tiny = self.tiny
        return Cell(
            method=find(method).choose(),
            dataset=DATASETS["digits" if tiny else self.dataset],
            imbalance_factor=20.0 if tiny else 100.0,
            backbone=BackboneChoice(name="resnet8_cifar" if tiny else "resnet32_cifar"),
            protocol=Protocol(
                batch_size=8 if tiny else batch, optimizer=Optimizer(), augmentation=augmentation
            ),
        )

    def speed(self) -> None:
        """Measure a step's parts, runs alone and together, and the papers' loop."""
        plain, strong = self.cell("ce", "crop_flip"), self.cell("ce", "autoaugment_cutout")
        views = self.cell("bcl", "autoaugment_cutout", 256)
        self.attempt("parts", lambda: parts(strong, self.data, self.note))
        self.attempt("three views", lambda: self.ladder("three views", views, 8))
        self.attempt("AutoAugment", lambda: self.ladder("AutoAugment and Cutout", strong, 16))
        self.attempt("crop and flip", lambda: self.ladder("crop and flip", plain, 16))
        for workers in (0,) if self.tiny else (8,):
            steps = official(plain, long_tail(10_847, 100), workers, DEVICE)
            for _ in range(2 if self.tiny else 20):
                next(steps)
            images = round(pace(steps, 1 if self.tiny else 4))
            self.note("papers' loop, crop and flip", workers=workers, images_per_second=images)

    def ladder(self, name: str, one: Cell, most: int) -> None:
        """Measure 1, 2, 4, ... runs together."""
        with tempfile.TemporaryDirectory() as scratch:
            trial = Trial(one, self.data, DEVICE, Path(scratch))
            for runs in RUNS:
                if runs > (1 if self.tiny else most):
                    break
                rate = trial.rate(runs)
                if rate is None:
                    self.note(name, runs=runs, images_per_second=None)
                    break
                memory = torch.cuda.memory_reserved() / 2**20 if DEVICE == "cuda" else None
                images = round(rate * one.protocol.batch_size)
                self.note(name, runs=runs, images_per_second=images, reserved_mb=memory)

    def compile(self) -> None:
        """Measure one compiled run: its first steps, and its ratio to a plain one, alternating with it."""
        one = self.cell("ce", "crop_flip")
        with tempfile.TemporaryDirectory() as scratch:
            usual = Trial(one, self.data, DEVICE, Path(scratch, "usual"))
            usual.rate(1)  # builds the run, and records its graphs
            if not self.tiny:
                refuse(DEVICE)
                os.environ[COMPILE] = "1"
            started = time.monotonic()
            trial = Trial(one, self.data, DEVICE, Path(scratch, "compiled"))
            trial.rate(1)
            seconds = time.monotonic() - started
            pairs = [(usual.rate(1), trial.rate(1)) for _ in range(1 if self.tiny else ROUNDS)]
        ratios = [with_it / without for without, with_it in pairs if with_it and without]
        images = round(statistics.median(rate or 0.0 for _, rate in pairs) * one.protocol.batch_size)
        what = "not compiled, as that takes minutes on a CPU" if self.tiny else "compiled"
        middle = round(statistics.median(ratios), 3)
        self.note(what, ratio=middle, images_per_second=images, first_seconds=round(seconds, 1))


def pace(steps: Iterator[tuple[Any, int]], seconds: float) -> float:
    """Return the images per second of a loop that yields each step's number of images."""
    started, done = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        done += next(steps)[1]
    return done / (time.monotonic() - started)


def parts(cell: Cell, data: Path, note: Note) -> None:
    """Measure the parts of a step and of an evaluation."""
    device = DEVICE

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def milliseconds(function: Callable[[], object], count: int) -> float:
        function()
        wait()
        times = []
        for _ in range(5):
            started = time.monotonic()
            for _ in range(count):
                function()
            wait()
            times.append((time.monotonic() - started) / count * 1e3)
        return round(statistics.median(times), 3)

    count = 40 if device == "cuda" else 1
    with tempfile.TemporaryDirectory() as scratch:
        training = Trial(cell, data, device, Path(scratch))._training(0)

    def measured() -> Iterator[None]:
        steps = training.steps(lambda line: None)
        for _ in range(3):
            next(steps)
        yield
        rows = training.loader._rows
        for key, (graph, _) in getattr(training.loader.play, "recorded", {}).items():

            def again(graph: Any = graph) -> None:
                torch.arange(len(rows), out=rows)  # each replay advances the rows
                graph.replay()

            note(f"replay of {key}", milliseconds=milliseconds(again, count))
        started = time.monotonic()
        for _ in range(count):
            next(steps)
        host = (time.monotonic() - started) / count * 1e3
        wait()
        whole = (time.monotonic() - started) / count * 1e3
        note("a step", host_ms=round(host, 3), whole_ms=round(whole, 3))
        note("evaluation", milliseconds=milliseconds(training.test_logits, 1))
        if device == "cuda":
            note("reserved", megabytes=torch.cuda.max_memory_reserved() / 2**20)
            images = next(images for images, _ in training.loader.test()).clone()
            method = training.method.eval()
            for form in (torch.channels_last, torch.contiguous_format):
                method.to(memory_format=form)
                for tf32 in (False, True):
                    torch.backends.cudnn.allow_tf32 = tf32
                    for size in (250, 1000):
                        some = images[:size].contiguous(memory_format=form)
                        with torch.inference_mode():
                            took = milliseconds(lambda some=some: method(some), 5)
                        note("scores, eager", images=size, format=str(form), tf32=tf32, milliseconds=took)
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                method.to(memory_format=torch.channels_last)
                some = images.contiguous(memory_format=torch.channels_last)
                note(
                    "scores, eager, bfloat16", images=1000, milliseconds=milliseconds(lambda: method(some), 5)
                )

    turns = Turns[str](device)
    turns.add("it", measured())
    for _, error in turns.take():
        if error:
            raise error


def main() -> None:
    """Measure one part."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("out", type=Path, help="a folder for the figures")
    arguments.add_argument("--part", choices=("speed", "compile"), default="speed")
    arguments.add_argument("--data", type=Path, default=Path("data"))
    arguments.add_argument("--dataset", default="cifar100_rebuilt")
    arguments.add_argument("--tiny", action="store_true", help="a rehearsal on a CPU, with digits")
    options = arguments.parse_args()
    file = options.out / f"{options.part}.json"
    measure = Measure(file, options.data, options.dataset, options.tiny)
    measure.speed() if options.part == "speed" else measure.compile()


if __name__ == "__main__":
    main()
