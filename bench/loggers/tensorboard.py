"""TensorBoard: a folder of events for each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.loggers import Logger, Started


@dataclass
class TensorBoard(Logger):
    """Write event files; `tensorboard --logdir results/loggers/tensorboard` shows them."""

    package = "tensorboard"

    def start(self, run: Started) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # drops what an interrupted run wrote after its checkpoint
        self.writer: Any = SummaryWriter(
            str(run.home / "tensorboard" / run.run_id), purge_step=run.first_epoch
        )
        self.last = run.first_epoch

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self.last = epoch
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def end(self, status: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, self.last)
        self.writer.close()
