"""trackio: a local database, or a dashboard on the Hugging Face Hub."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.loggers import Logger, Started


@dataclass
class Trackio(Logger):
    """Log to a project in TRACKIO_DIR or, with `space`, in a Space (user/name)."""

    project: str = "longtail-bench"
    space: str | None = None

    package = "trackio"

    def start(self, run: Started) -> None:
        import trackio

        # In a new context, as trackio ends the run that it finds in the current one.
        self.run: Any = contextvars.Context().run(
            trackio.init,
            project=self.project,
            name=run.run_id,
            group=run.group,
            space_id=self.space,
            config=dict(run.config),
            resume="allow" if run.first_epoch else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=epoch)

    def end(self, status: str, values: Mapping[str, float]) -> None:
        if values:
            self.run.log(dict(values))
        self.run.finish()
