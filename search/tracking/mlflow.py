"""A study on an MLflow server: an experiment a study, an MLflow run a trial."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import create_engine

from search.errors import ConfigError
from search.space import flatten
from search.study.records import TrialRecord
from search.study.trial import Trial

# MLflow's own defaults retry for minutes and report its use; what the environment says wins.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
ENDS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class MLflow:
    """The experiment of one study; what a killed search left unfinished is taken up again."""

    def __init__(self, uri: str, study_name: str, study_folder: str) -> None:
        """Reach the server, and find or make the experiment.

        Raises:
            ConfigError: MLflow is not installed.
            mlflow.exceptions.MlflowException: the server cannot be reached or refuses.
        """
        client = _client_class()
        if uri.startswith(("postgresql", "mysql")):  # for which MLflow retries for minutes
            create_engine(uri, connect_args={"connect_timeout": 5}).connect().close()
        self._client = client(tracking_uri=uri)
        self._study_folder = study_folder
        found = self._client.get_experiment_by_name(study_name)
        self._id = found.experiment_id if found else self._client.create_experiment(study_name)
        self._left = self._unfinished()

    def begin(self, name: str, trial: Trial) -> "MLflowRun":
        from mlflow.entities import Param

        if name in self._left:
            return self._left.pop(name)
        tags = {"status": "running", "study_folder": self._study_folder}
        tags |= {"recipe": trial.recipe} if trial.recipe else {}
        run_id = self._client.create_run(self._id, run_name=name, tags=tags).info.run_id
        params = [Param(key, str(value)) for key, value in flatten(trial.params).items()]
        self._client.log_batch(run_id, params=params)
        return MLflowRun(self._client, run_id)

    def close(self) -> None:
        while self._left:
            self._left.popitem()[1].close()

    def _unfinished(self) -> dict[str, "MLflowRun"]:
        """By name; only of this study folder, as others may have studies of this name."""
        runs = self._client.search_runs([self._id], "tags.status = 'running'")
        return {
            run.info.run_name: MLflowRun(
                self._client, run.info.run_id, int(run.data.metrics.get("epoch", 0))
            )
            for run in runs
            if run.data.tags.get("study_folder") == self._study_folder
        }


@dataclass
class MLflowRun:
    """One trial on the server."""

    client: Any
    id: str
    epochs: int = 0

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self._log({**values, "epoch": number}, step=number)
        self.epochs = number

    def end(self, record: TrialRecord) -> None:
        if record.value is not None:
            self._log({"best_value": record.value}, step=record.best_epoch or 0)
        self.client.set_tag(self.id, "status", record.status)
        if record.error:
            self.client.set_tag(self.id, "error", record.error)
        self.client.set_terminated(self.id, ENDS[record.status])

    def close(self) -> None:
        self.client.set_terminated(self.id, "KILLED")

    def _log(self, values: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)


def _client_class() -> Any:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise ConfigError(
            "tracking.mlflow needs the mlflow extra: pip install 'consilium[mlflow]'"
        ) from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient
