"""MLflow: all runs in one experiment, on a tracking server or in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.loggers import Logger, Started

#: The tag with the run's id, by which a run that continues is found.
TAG = "longtail.run_id"

#: MLflow's final statuses; any other is "FAILED".
ENDS = {"done": "FINISHED", "interrupted": "KILLED"}


@dataclass
class MLflow(Logger):
    """Log to an experiment; without `uri` and MLFLOW_TRACKING_URI, to files in `results/loggers/mlruns/`."""

    uri: str | None = None
    experiment: str = "longtail-bench"

    package = "mlflow"

    def start(self, run: Started) -> None:
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            uri = (run.home / "mlruns").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder needs no database
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=uri)
        known = self.client.get_experiment_by_name(self.experiment)
        home = known.experiment_id if known else self.client.create_experiment(self.experiment)
        earlier = self.client.search_runs([home], f"tags.`{TAG}` = '{run.run_id}'", max_results=1)
        if earlier and run.first_epoch:
            self.id = earlier[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
            return
        tags = {TAG: run.run_id, "group": run.group}
        self.id = self.client.create_run(home, tags=tags, run_name=run.run_id).info.run_id
        for key, value in run.config.items():
            self.client.log_param(self.id, key, value)

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self._log(values, epoch)

    def end(self, status: str, values: Mapping[str, float]) -> None:
        self._log(values, 0)
        self.client.set_terminated(self.id, ENDS.get(status, "FAILED"))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(*item, now, step) for item in values.items()])
