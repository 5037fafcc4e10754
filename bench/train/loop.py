"""The training loop, one for all methods.

`Training.steps` is a generator that yields after each step, so that one process can drive several runs.
Making a batch (in the loader) and learning from it are separate functions, which CUDA replays in fast mode
(see `bench.captured`); the method's hooks are called between them. Several ranks run this loop side by side
and exchange data in the backbone and where gradients are averaged (see `bench.ranks`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from bench import ranks
from bench.captured import at_once
from bench.cell import Cell
from bench.data.feed.loader import Loader
from bench.errors import BenchError, memory_ran_out
from bench.method import Batch, Clock, Method
from bench.metrics import score
from bench.randomness import generator, seed_of
from bench.rundir import RunDir
from bench.train.averaging import Average
from bench.train.compiled import compile_stages, is_asked
from bench.train.displaced import displacement
from bench.train.evaluate import logits_of
from bench.train.memory import Snapshot, divisible, pieces
from bench.train.precision import wants_bfloat16
from bench.train.resuming import resume, save
from bench.train.schedule import lr_factor, make_optimizer, set_lr

#: Called with the line of each finished epoch, as in epochs.jsonl.
Report = Callable[[dict[str, Any]], None]


class Training:
    """The training of one run: its method, data, optimiser and results so far.

    Attributes:
        logits: test logits (N, C), float16, of the last evaluation.
        best: metrics of the epoch with the best test accuracy, the earliest of equals; papers often report
            it, we never headline it.
        chosen: test metrics of the epoch with the best validation accuracy, if there is a validation set.
        compiled: whether the backbone's stages are; never in exact mode and over several ranks.
        micro_batches: into how many pieces a step's batch is divided to save memory.
        averaged: test logits (N, C), float16, of the averaged weights, if the protocol asks for them.
    """

    def __init__(
        self,
        cell: Cell,
        method: Method,
        loader: Loader,
        run: RunDir,
        device: str,
        checkpoint_seconds: float,
        alone: bool = False,
        basis: str | None = None,
    ) -> None:
        """Prepare the run.

        Args:
            alone: no other run uses the GPU, so that if memory is short only smaller pieces help.
            basis: identifies data and code (see `bench.stale.mark`); a checkpoint with another is ignored.
        """
        self.cell, self.method, self.loader, self.run, self.device = cell, method, loader, run, device
        self.checkpoint_seconds, self.basis = checkpoint_seconds, basis
        fast = cell.mode == "fast"
        self.play = loader.play if method.capturable else at_once
        self.displacement = displacement(method, cell.protocol.optimizer)
        averaging = cell.protocol.averaging
        self.average = None if averaging is None else Average(method, averaging)
        if fast:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bfloat16 = wants_bfloat16(cell.mode, device)
        self.optimizer = make_optimizer(
            method, cell.protocol.optimizer, fused=fast, captured=self.play is not at_once
        )
        self.total_loss = torch.zeros((), device=device)
        self.logits: np.ndarray | None = None
        self.best: dict[str, Any] | None = None
        self.chosen: dict[str, Any] | None = None
        self.micro_batches, self.alone = 1, alone
        self.averaged: np.ndarray | None = None
        whole = self.displacement is not None and self.displacement.weighs
        self.divisible = alone and ranks.world() == 1 and divisible(method) and not whole
        self.fits: set[Hashable] = set()
        self.compiled = is_asked() and fast and ranks.world() == 1
        if self.compiled:
            compile_stages(method)

    def steps(self, report: Report) -> Iterator[Clock]:
        """Train from the last checkpoint to the end, yielding after each step."""
        cell, method, loader = self.cell, self.method, self.loader
        protocol, epochs = cell.protocol, cell.protocol.epochs if self.method.trains else 0
        saved_at = time.monotonic()

        for epoch in range(resume(self), epochs):
            started = time.monotonic()
            clock = Clock(epoch, epochs, epoch * loader.steps, epochs * loader.steps)
            method.train()
            method.before_epoch(clock)
            self._read_training_set(clock)
            if ranks.world() > 1:
                ranks.follow_first(method.state_dict().values())
            for name in {view.strength_of for view in method.views} - {""}:
                loader.strengths[name] = getattr(method, name).cpu().numpy()
            draws = method.draws(generator("method", cell.seed, epoch), loader.size)
            sampler, phase = protocol.sampler or method.sampler(epoch, epochs), method.phase(epoch, epochs)
            self.total_loss.zero_()

            for step, batch in enumerate(loader.epoch(epoch, epochs, sampler, draws), start=clock.step):
                clock = Clock(epoch, epochs, step, clock.steps)
                lr = protocol.optimizer.lr * lr_factor(protocol.schedule, clock)
                set_lr(self.optimizer, lr)
                method.before_step(clock, batch)
                self._seed_noise(step, 0)
                if self.displacement is not None:
                    precision = torch.autocast(loader.device.type, torch.bfloat16, enabled=self.bfloat16)
                    with torch.no_grad(), precision:
                        self.displacement.before_step(clock, batch)
                if ranks.rank():  # whose dropout is its own, while all have displaced the weights alike
                    self._seed_noise(step, ranks.rank())
                self._step(phase, batch)
                if step == 0 and not self.total_loss.isfinite():
                    raise BenchError(
                        f"{cell.method.name}: the loss is {self.total_loss.item()} in the first step, before "
                        "the weights have changed; look for a fault in the method's loss"
                    )
                method.after_step(clock, batch)
                if self.average is not None:
                    self.average.after_step()
                yield clock

            yield from self._wait(clock)
            loss = self.total_loss.item() / loader.steps
            line = {"epoch": epoch, "epochs": epochs, "loss": loss, "lr": lr}
            self._check(line)
            if self.average is not None:
                self.average.after_epoch(clock)
            line["seconds"] = round(time.monotonic() - started, 3)  # evaluation is not a method's cost
            if protocol.evaluates_after(epoch):
                logits = self.test_logits()
                yield from self._wait(clock)
                line["accuracy"] = self._evaluate(epoch, logits)
            self.run.append_epoch(line)
            report(line)
            if time.monotonic() - saved_at >= self.checkpoint_seconds:
                save(self, epoch)
                saved_at = time.monotonic()

        if self.logits is None:  # nothing to train, or killed between the last checkpoint and the record
            self.logits = self.test_logits().cpu().numpy()
        if self.average is not None:
            with self.average.in_place(self.loader.train_eval()):
                self.averaged = self.test_logits().cpu().numpy()

    @torch.no_grad()
    def _read_training_set(self, clock: Clock) -> None:
        """Show a method that asks for them training images between epochs, unaugmented or distorted."""
        method, wanted, asked = self.method, self.method.wants_training_set(clock), self.method.probe(clock)
        if not wanted and asked is None:
            return
        method.eval()
        if wanted:
            method.read_training_set(clock, self.loader.train_eval())
        if asked is not None:
            method.read_probe(clock, self.loader.probe(*asked, clock.epoch), *asked)
        method.train()

    def _step(self, phase: int, batch: Batch) -> None:
        """Make one step; if memory is short and the method's loss allows it, in smaller pieces from then on.

        Before the first step of a kind everything that it changes is saved, and restored if it fails. If a
        later one fails, because of other programs on the GPU, batch norm's averages are updated twice.
        """
        while True:
            key = ("learn", (phase, self.micro_batches), len(batch.labels))
            first = self.divisible and key not in self.fits
            before = Snapshot(list(self._changed())) if first else None
            try:
                self.play(key, partial(self._learn, batch, self.micro_batches), self._changed)
            except RuntimeError as error:
                helps = self.divisible and 4 * self.micro_batches <= len(batch.labels)
                if not (helps and memory_ran_out(error)):
                    raise
            else:
                self.fits.add(key)
                return
            self.optimizer.zero_grad()
            if before is not None:
                before.restore(list(self._changed()))
            if self.loader.device.type == "cuda":
                torch.cuda.empty_cache()
            self.micro_batches *= 2

    def _seed_noise(self, step: int, rank: int) -> None:
        """Seed noise and dropout for a step, so that they are the same when resumed or beside other runs."""
        seed = seed_of("noise", self.cell.seed, step, rank)
        torch.default_generator.manual_seed(seed)
        if self.loader.device.type == "cuda":
            torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)

    def _learn(self, batch: Batch, micro_batches: int) -> None:
        """Make one optimiser step on a batch."""
        self.optimizer.zero_grad()
        backward = partial(self._backward, batch, micro_batches)
        if self.displacement is None:
            loss = backward()
        else:
            loss = self.displacement.descend(batch.labels, backward, partial(self._losses, batch))
        self.total_loss += loss
        ranks.average_gradients(self.method.parameters())
        if self.cell.protocol.optimizer.clip is not None:
            clip_grad_norm_(self.method.parameters(), self.cell.protocol.optimizer.clip)
        self.optimizer.step()

    def _backward(self, batch: Batch, micro_batches: int) -> Tensor:
        """Add the gradient of a batch's loss to the parameters', and return the loss."""
        size, losses = len(batch.labels), []
        for piece in pieces(batch, micro_batches):
            with self._forward():
                loss = _checked(self.method.loss(piece), self.cell.method.name)
            if piece is not batch:
                loss = loss * (len(piece.labels) / size)
            loss.backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _losses(self, batch: Batch) -> Tensor:
        """Return the loss of each image of a batch, (B,)."""
        with self._forward():
            return self.method.losses(batch)

    @contextmanager
    def _forward(self) -> Iterator[None]:
        """Compute a loss in the run's precision, and only there by compiled stages."""
        stages = torch.compiler.set_stance("default") if self.compiled else nullcontext()
        with torch.autocast(self.loader.device.type, torch.bfloat16, enabled=self.bfloat16), stages:
            yield

    def _changed(self) -> Iterator[Tensor]:
        """Yield the tensors that a step changes."""
        yield self.total_loss
        yield from self.method.parameters()
        yield from self.method.buffers()
        for state in self.optimizer.state.values():
            yield from (tensor for tensor in state.values() if isinstance(tensor, Tensor))

    def _wait(self, clock: Clock) -> Iterator[Clock]:
        """Yield until the device has finished, so that other runs continue meanwhile."""
        if self.loader.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            while not (self.alone or event.query()):
                yield clock
                time.sleep(0)  # releases the GIL, as other threads read images
            event.synchronize()

    def test_logits(self) -> Tensor:
        """Return the test set's logits, which the device may still be computing."""
        images = (images for images, _ in self.loader.test())
        return logits_of(self.method, images, self.play)

    def _validation_accuracy(self) -> float | None:
        """Return the validation accuracy in percent, or None if there is no validation set."""
        labels = self.loader.val_labels
        if not len(labels):
            return None
        logits = logits_of(self.method, (images for images, _ in self.loader.val()), self.play)
        return float((logits.cpu().numpy().argmax(axis=1) == labels).mean() * 100)

    def _evaluate(self, epoch: int, logits: Tensor) -> float:
        self.logits, split = logits.cpu().numpy(), self.loader.split
        metrics = score(self.logits, split.test_labels, split.class_counts, self.cell.dataset.shots)
        shown = {"epoch": epoch, **{key: metrics[key] for key in ("accuracy", "many", "medium", "few")}}
        if self.best is None or metrics["accuracy"] > self.best["accuracy"]:
            self.best = shown
        validation = self._validation_accuracy()
        highest = -1.0 if self.chosen is None else self.chosen["validation_accuracy"]
        if validation is not None and validation > highest:
            self.chosen = shown | {"validation_accuracy": validation}
        return float(metrics["accuracy"])

    def _check(self, line: dict[str, Any]) -> None:
        if not math.isfinite(line["loss"]):
            raise BenchError(
                f"the loss became {line['loss']} in epoch {line['epoch']}; lower protocol.optimizer.lr "
                f"({self.cell.protocol.optimizer.lr:g}) or raise protocol.schedule.warmup_epochs"
            )


def _checked(loss: object, method: str) -> Tensor:
    """Return a method's loss, if it is one number with a gradient."""
    if isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad:
        return loss
    got = type(loss).__name__
    if isinstance(loss, Tensor):
        got = f"a tensor {(*loss.shape,)}{'' if loss.requires_grad else ' without a gradient'}"
    raise BenchError(f"{method}: its loss should be one number with a gradient, got {got}")
