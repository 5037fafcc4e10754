"""Saves a training's state in its checkpoint, and resumes from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import ranks
from bench.errors import BenchError
from bench.train.checkpoint import read_checkpoint, write_checkpoint
from bench.train.precision import OtherPrecisionError

if TYPE_CHECKING:
    from bench.train.loop import Training


def save(training: Training, epoch: int) -> None:
    """Write the checkpoint after an epoch."""
    state = {
        "epoch": epoch,
        "method": training.method.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "best": training.best,
        "chosen": training.chosen,
        "micro_batches": training.micro_batches,
        "basis": training.basis,
        "bfloat16": training.bfloat16,
        "average": None if training.average is None else training.average.state(),
    }
    write_checkpoint(training.run.checkpoint, training.cell.id, state)


def resume(training: Training) -> int:
    """Load the checkpoint, remove later epoch lines, and return the first epoch to train.

    Raises:
        OtherPrecisionError: it has another precision than this machine.
        BenchError: it is damaged, of another cell, or not the same for all ranks.
    """
    run, optimizer = training.run, training.optimizer
    state = read_checkpoint(run.checkpoint, training.cell.id, training.device)
    next_epoch = 0
    if state is not None and state.get("basis", training.basis) != training.basis:
        state = None  # of a run on other data, or by other code
    if state is not None:
        _refuse_other_precision(training, state.get("bfloat16", training.bfloat16))  # absent in older ones
        training.method.load_state_dict(state["method"])
        own = optimizer.state_dict()["param_groups"]  # keeps the rate's tensor; the device may be another
        optimizer.load_state_dict(state["optimizer"] | {"param_groups": own})
        training.best, next_epoch = state["best"], state["epoch"] + 1
        training.chosen, training.micro_batches = state.get("chosen"), state.get("micro_batches", 1)
        if training.average is not None:
            training.average.load(state["average"])
    if ranks.world() > 1 and not ranks.agree(next_epoch, training.device):
        raise BenchError(f"{run.checkpoint}: not the first rank's; let all ranks see one folder")
    run.keep_epochs(next_epoch)
    return next_epoch


def _refuse_other_precision(training: Training, bfloat16: bool) -> None:
    if bfloat16 != training.bfloat16:
        path = training.run.checkpoint
        theirs, ours = ("bfloat16" if half else "float32" for half in (bfloat16, training.bfloat16))
        raise OtherPrecisionError(
            f"{path.name}: trained in {theirs}, and this machine computes in {ours}; it waits for a machine "
            f"with {theirs}; --force trains it here, or delete {path}"
        )
