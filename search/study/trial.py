"""One trial against a study folder: opens its images, trains, and writes down what came of it."""

import math
import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from search.atomic import finite
from search.config import ExperimentConfig
from search.data.cache import ImageCache, Progress, cache_rows
from search.data.splits import TRAIN, fold_rows
from search.errors import CacheError, InfeasibleError, StudyError
from search.objectives import COSTS, value_of
from search.params import Params
from search.study.records import StudyFolder, TrialRecord
from search.study.shard import open_shard
from search.training.backbones import preprocessing_of
from search.training.batches import Fold
from search.training.costs import violations
from search.training.features import cached_features, is_headonly
from search.training.metrics import confusion, per_class_report
from search.training.ranks import ALONE, Ranks
from search.training.task import Epoch, FoldResult, Report, Task
from search.training.train import train_fold


@dataclass(frozen=True)
class Trial:
    """What is to be trained.

    Attributes:
        number: in the study.
        fold: to validate on.
        epochs: to train exactly, the last one counting; None picks the best one.
        plateau_nll: the NLL of fold 0 after each epoch, which a plateau schedule then follows.
        promoted_from: the trial of the first rung, if this is its second.
    """

    number: int
    params: Params
    recipe: str | None = None
    fold: int = 0
    epochs: int | None = None
    plateau_nll: tuple[float, ...] | None = None
    promoted_from: int | None = None


def train_trial(
    config: ExperimentConfig,
    trial: Trial,
    *,
    report: Report = lambda _: None,
    threads: int = 1,
    ranks: Ranks = ALONE,
) -> FoldResult:
    """Train on one fold; record, probabilities and weights are on disk before each report.

    So a trial that is stopped in its report, as ASHA does, has lost nothing.

    Raises:
        InfeasibleError: before the first epoch, where the classifier breaks a constraint.
        TrainingError: it cannot go on; the record says why.
    """
    torch.set_num_threads(threads)
    keep = _Keeper(config, trial, ranks)
    try:
        result = _train(config, trial, keep, report, threads)
    except Exception as error:
        keep.fail(error)
        raise
    if trial.fold > 0:
        keep.end()
    return result


def _train(
    config: ExperimentConfig, trial: Trial, keep: "_Keeper", report: Report, threads: int
) -> FoldResult:
    study = keep.study
    head, images = study.head(), fold_images(study)
    sharded = config.resources.shard and keep.ranks.world > 1
    if sharded:
        cache, rows = open_shard(
            config,
            images,
            preprocessing_of(trial.params),
            fold=trial.fold,
            ranks=keep.ranks,
            threads=threads,
        )
    else:
        cache, rows = open_fold_images(config, trial.params, threads=threads)
    train, val = fold_rows(images, trial.fold)
    labels = images["label"].to_numpy(np.int64)
    fold = Fold(cache.pixels, rows[train], labels[train], rows[val], labels[val], sharded=sharded)
    task = Task(
        n_classes=len(head.classes),
        positive=None if head.positive is None else head.classes.index(head.positive),
        policy=config.policy,
        objective=config.objectives[0],
        epochs=config.fidelity.max_epochs,
        fixed_epochs=trial.epochs,
        plateau_nll=trial.plateau_nll,
        patience=config.fidelity.patience,
        measure_costs=any(name in COSTS for name in (*config.constraints, *config.objectives)),
        weights=config.weights,
        seed=config.seed,
    )
    keys = images["image"].to_numpy()[val].tolist()

    def kept(epoch: Epoch) -> None:
        keep.epoch(epoch, keys, fold.val_labels, head.classes)
        report(epoch)

    device = "cuda" if torch.cuda.is_available() and config.resources.gpu > 0 else "cpu"
    features = partial(cached_features, cache, trial.params)
    return train_fold(
        fold,
        trial.params,
        task,
        device=device,
        report=kept,
        begun=keep.costs,
        ranks=keep.ranks,
        features=features if is_headonly(trial.params) else None,
    )


def fold_images(study: StudyFolder) -> pd.DataFrame:
    """The open images that folds are made of, without the calibration slice."""
    images = study.open_images()
    return images[images["part"] == TRAIN].reset_index(drop=True)


def open_fold_images(
    config: ExperimentConfig, params: Params, *, threads: int = 1, progress: Progress | None = None
) -> tuple[ImageCache, NDArray[np.int64]]:
    """The decoded images of all folds at a trial's size, and the row of each."""
    images = fold_images(StudyFolder(config.study_folder))
    preprocessing = preprocessing_of(params)
    return cache_rows(
        images,
        preprocessing,
        config.cache_folder,
        threads=threads,
        limit=config.cache_bytes,
        progress=progress,
    )


def note_failure(config: ExperimentConfig, trial: Trial, error: Exception) -> None:
    """Write down why a trial failed, where its own process could not."""
    folder = StudyFolder(config.study_folder)
    record = folder.record(trial.number, fold=trial.fold)
    if record.status == "running":
        folder.write_record(record.model_copy(update=_failure(error)))


def _failure(error: Exception) -> dict[str, object]:
    text = str(error).encode("utf-8", "replace").decode()  # a file's name may hold anything
    reason = " ".join(text.split()) or type(error).__name__
    status = "pruned" if isinstance(error, InfeasibleError) else "failed"
    return {"status": status, "error": reason[:500], "again": _is_outside(error)}


class _ReadOnly(StudyFolder):
    """The study folder of a worker that is not the first: what it would write is the same."""

    def write_record(self, record: TrialRecord) -> None:
        pass

    def write_probs(self, *args: Any, **kwargs: Any) -> None:
        pass

    def write_weights(self, *args: Any, **kwargs: Any) -> None:
        pass


class _Keeper:
    """Writes a trial's files after each epoch."""

    def __init__(self, config: ExperimentConfig, trial: Trial, ranks: Ranks) -> None:
        folder = StudyFolder if ranks.rank == 0 else _ReadOnly
        self.config, self.ranks, self.study = config, ranks, folder(config.study_folder)
        self.start = time.perf_counter()
        self.record = TrialRecord(
            number=trial.number,
            status="running",
            recipe=trial.recipe,
            params=trial.params,
            fold=trial.fold,
            promoted_from=trial.promoted_from,
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
            worker=f"{socket.gethostname()}:{os.getpid()}",
            workers=config.resources.workers,
        )
        self.study.write_record(self.record)

    def costs(self, costs: dict[str, float]) -> None:
        """Note what the classifier costs; too much ends the trial before it begins."""
        bounds = {k: v for k, v in self.config.bounds.items() if k in costs}
        exceeded = violations(bounds, costs)
        self._note(costs=costs, violations=exceeded)
        if exceeded:
            name = next(iter(exceeded))
            raise InfeasibleError(f"{name} is {costs[name]:.4g}, the bound {bounds[name]:g}")

    def epoch(
        self, epoch: Epoch, images: list[str], labels: NDArray[np.int64], classes: list[str]
    ) -> None:
        """Note an epoch; where it is the best so far, its probabilities and weights, too."""
        cut = epoch.metrics.get("micro_batch")
        update: dict[str, object] = {
            "epochs": [*self.record.epochs, finite(epoch.metrics)],
            "micro_batch": None if cut is None else int(cut),
        }
        if epoch.number == 1:
            stepping = epoch.metrics["train_seconds"] + epoch.metrics["val_seconds"]
            update["setup_seconds"] = time.perf_counter() - self.start - stepping
        if epoch.improved:
            number, fold = self.record.number, self.record.fold
            self.study.write_probs(number, images, epoch.probs, classes, fold=fold)
            self.study.write_weights(number, epoch.state, fold=fold)
            update |= {"value": epoch.value, "best_epoch": epoch.number}
            update |= self._judge(epoch)
            update["confusion"] = confusion(epoch.probs, labels).tolist()
            update["per_class"] = finite(per_class_report(epoch.probs, labels, classes))
        self._note(**update)

    def fail(self, error: Exception) -> None:
        """Note why the trial ends."""
        self._note(**_failure(error))

    def end(self) -> None:
        """Note that a fold is done; the trial's own status is for the study to tell."""
        self._note(status="complete")

    def _judge(self, epoch: Epoch) -> dict[str, object]:
        """Every objective, and what breaks a constraint, at the best epoch."""
        known = {**epoch.metrics, **self.record.costs}
        values = {name: value_of(name, known) for name in self.config.objectives}
        return {
            "values": {name: value for name, value in values.items() if math.isfinite(value)},
            "violations": violations(self.config.bounds, known),
        }

    def _note(self, **update: object) -> None:
        seconds = time.perf_counter() - self.start
        resources = self.config.resources
        spent = seconds / 3600 * resources.gpu * resources.workers
        self.record = self.record.model_copy(
            update={**update, "seconds": seconds, "gpu_hours": spent}
        )
        self.study.write_record(self.record)


def _is_outside(error: Exception) -> bool:
    """Whether a trial failed by its surroundings, a full disk say, and not by its params."""
    return isinstance(error, OSError | CacheError | StudyError)
