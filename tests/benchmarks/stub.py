"""A trial that trains nothing: it sleeps, reports and writes its record as a real one does."""

import math
import os
import socket
import time
from datetime import UTC, datetime

import numpy as np

from search.config import ExperimentConfig
from search.params import Params
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import Trial
from search.training.task import Epoch, Report


def sleep_through(
    config: ExperimentConfig, trial: Trial, *, report: Report, threads: int, seconds: float
) -> None:
    """In place of `train_trial`.

    Args:
        seconds: of an epoch.
    """
    study, begin = StudyFolder(config.study_folder), time.perf_counter()
    record = TrialRecord(
        number=trial.number,
        status="running",
        params=trial.params,
        fold=trial.fold,
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )
    study.write_record(record)
    n_epochs = config.fidelity.max_epochs
    for number in range(1, n_epochs + 1):
        time.sleep(seconds)
        nll = nll_of(trial.params, number)
        metrics = {"nll": nll, "auroc": 1 - nll / 2, "train_seconds": seconds, "val_seconds": 0.0}
        update: dict[str, object] = {
            "epochs": [*record.epochs, metrics],
            "value": nll,
            "values": {"nll": nll},
            "best_epoch": number,
            "seconds": time.perf_counter() - begin,
        }
        record = record.model_copy(update=update)
        study.write_record(record)
        nothing = np.empty((0, 2), np.float32)
        report(Epoch(number, metrics, nll, nll, True, number == n_epochs, nothing, {}))


def nll_of(params: Params, epoch: int) -> float:
    """Some landscape for the sampler: it falls with the epochs and has one best rate."""
    return 0.3 + 0.1 * math.log10(params.lr / 8e-4) ** 2 + 0.1 * params.dropout + 0.2 / epoch
