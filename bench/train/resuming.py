"""What of a training goes into its checkpoint, and how it goes on from there."""

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
    """Load the checkpoint, cut the epoch lines back to it, and return the first epoch to train.

    Raises:
        OtherPrecisionError: it was trained in other numbers than this machine computes in.
        BenchError: it is damaged, of another cell, or not the same for all ranks.
    """
    run, optimizer = training.run, training.optimizer
    state = read_checkpoint(run.checkpoint, training.cell.id, training.device)
    next_epoch = 0
    if state is not None and state.get("basis", training.basis) != training.basis:
        state = None  # half of a run on other data, or by other code
    if state is not None:
        _refuse_other_precision(training, state.get("bfloat16", training.bfloat16))  # older ones do not know
        training.method.load_state_dict(state["method"])
        own = optimizer.state_dict()["param_groups"]  # the rate's place; the device may be another
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
        theirs, ours = ("bfloat16" if numbers else "float32" for numbers in (bfloat16, training.bfloat16))
        raise OtherPrecisionError(
            f"{path.name}: trained in {theirs}, and this machine computes in {ours}; it waits for a machine "
            f"with {theirs}; --force trains it here, or delete {path}"
        )
