"""Weights & Biases: one run for each, under the run's id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.loggers import Logger, Started


@dataclass
class Wandb(Logger):
    """Log to a project; defaults come from wandb's environment variables.

    `mode=offline` writes to `results/loggers/wandb/`, for `wandb sync`.
    """

    project: str | None = None
    entity: str | None = None
    mode: str | None = None

    package = "wandb"

    def start(self, run: Started) -> None:
        import wandb

        given: dict[str, Any] = {"project": self.project, "entity": self.entity, "mode": self.mode}
        run.home.mkdir(parents=True, exist_ok=True)
        self.run: Any = wandb.init(
            **{key: value for key, value in given.items() if value},
            id=run.run_id,
            name=run.run_id,
            group=run.group,
            config=dict(run.config),
            dir=str(run.home),
            resume="allow" if run.first_epoch else None,  # one that starts over replaces the old one
            reinit="create_new",  # several runs at once
            settings=wandb.Settings(console="off", x_disable_stats=True, disable_git=True, silent=True),
        )
        self.run.define_metric("*", step_metric="epoch")

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self.run.log({"epoch": epoch, **values})

    def end(self, status: str, values: Mapping[str, float]) -> None:
        self.run.summary.update({"status": status, **values})
        self.run.finish(exit_code=0 if status == "done" else 1)
