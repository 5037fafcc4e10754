"""The training loop: one, for every method, readable from top to bottom.

`Training.steps` is a generator that yields after each step, so that one process can drive several runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from bench.cell import Cell
from bench.data.loader import Loader
from bench.errors import BenchError
from bench.method import Clock, Method
from bench.metrics import score
from bench.randomness import generator
from bench.rundir import RunDir
from bench.train.checkpoint import read_checkpoint, write_checkpoint
from bench.train.evaluate import scores_of
from bench.train.schedule import lr_factor, make_optimizer, set_lr

#: Receives each finished epoch's line, the same as in epochs.jsonl.
Report = Callable[[dict[str, Any]], None]


class Training:
    """One run under way: a method, its data, its optimiser, and what is known of it so far.

    Attributes:
        logits: scores (N, C) float16 of the last evaluation.
        best: metrics of the epoch that scored best on the test set, the earliest of equals; papers often
            report it, we never headline it.
    """

    def __init__(
        self, cell: Cell, method: Method, loader: Loader, run: RunDir, device: str, checkpoint_seconds: float
    ) -> None:
        self.cell, self.method, self.loader, self.run, self.device = cell, method, loader, run, device
        self.checkpoint_seconds = checkpoint_seconds
        self.fast = cell.mode == "fast"
        if self.fast:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(method, cell.protocol.optimizer, fused=self.fast)
        self.logits: np.ndarray | None = None
        self.best: dict[str, Any] | None = None

    def steps(self, report: Report) -> Iterator[Clock]:
        """Train from the last checkpoint to the end, yielding after each step."""
        cell, method, loader = self.cell, self.method, self.loader
        protocol, epochs = cell.protocol, cell.protocol.epochs if self.method.trains else 0
        saved_at = time.monotonic()

        for epoch in range(self._resume(), epochs):
            started = time.monotonic()
            clock = Clock(epoch, epochs, epoch * loader.steps, epochs * loader.steps)
            method.train()
            method.before_epoch(clock)
            draws = method.draws(generator("method", cell.seed, epoch), loader.size)
            sampler = protocol.sampler or method.sampler(epoch, epochs)
            total_loss = torch.zeros((), device=self.device)

            for step, batch in enumerate(loader.epoch(epoch, epochs, sampler, draws), start=clock.step):
                clock = Clock(epoch, epochs, step, clock.steps)
                lr = protocol.optimizer.lr * lr_factor(protocol.schedule, clock)
                set_lr(self.optimizer, lr)
                method.before_step(clock, batch)
                self.optimizer.zero_grad()
                with torch.autocast(
                    "cuda", torch.bfloat16, enabled=self.fast and self.device.startswith("cuda")
                ):
                    loss = method.loss(batch)
                loss.backward()
                self.optimizer.step()
                method.after_step(clock, batch)
                total_loss += loss.detach()
                yield clock

            line = {"epoch": epoch, "epochs": epochs, "loss": total_loss.item() / loader.steps, "lr": lr}
            self._check(line)
            line["seconds"] = round(time.monotonic() - started, 3)  # evaluation is not a method's cost
            if (epoch + 1) % protocol.evaluate_every == 0 or epoch + 1 == epochs:
                line["accuracy"] = self._evaluate(epoch)
            self.run.append_epoch(line)
            report(line)
            if time.monotonic() - saved_at >= self.checkpoint_seconds:
                self._save(epoch)
                saved_at = time.monotonic()

        if self.logits is None:  # nothing to train, or killed between the last checkpoint and the record
            self.logits = scores_of(method, (images for images, _ in loader.test()))

    def _evaluate(self, epoch: int) -> float:
        self.logits = scores_of(self.method, (images for images, _ in self.loader.test()))
        split = self.loader.split
        metrics = score(self.logits, split.test_labels, split.class_counts, self.cell.dataset.shots)
        if self.best is None or metrics["accuracy"] > self.best["accuracy"]:
            self.best = {
                "epoch": epoch,
                **{key: metrics[key] for key in ("accuracy", "many", "medium", "few")},
            }
        return float(metrics["accuracy"])

    def _check(self, line: dict[str, Any]) -> None:
        if not math.isfinite(line["loss"]):
            raise BenchError(
                f"the loss became {line['loss']} in epoch {line['epoch']}; lower protocol.optimizer.lr "
                f"({self.cell.protocol.optimizer.lr:g}) or raise protocol.schedule.warmup_epochs"
            )

    def _save(self, epoch: int) -> None:
        state = {
            "epoch": epoch,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
        }
        write_checkpoint(self.run.checkpoint, self.cell.id, state)

    def _resume(self) -> int:
        """Load the checkpoint, cut the epoch lines back to it, and return the first epoch to train."""
        state = read_checkpoint(self.run.checkpoint, self.cell.id, self.device)
        next_epoch = 0
        if state is not None:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best, next_epoch = state["best"], state["epoch"] + 1
        self.run.keep_epochs(next_epoch)
        return next_epoch
