"""One trial against a study folder: opens its images, trains, and writes down what came of it."""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from search.atomic import finite
from search.backbones import preprocessing_of
from search.batches import Fold
from search.cache import ImageCache, Progress, cache_rows
from search.config import ExperimentConfig
from search.errors import CacheError
from search.metrics import confusion, per_class_report
from search.params import Params
from search.records import StudyFolder, TrialRecord
from search.splits import TRAIN, fold_rows
from search.train import Epoch, FoldResult, Report, Task, train_fold


@dataclass(frozen=True)
class Trial:
    """What is to be trained: its number in the study, its params and its fold."""

    number: int
    params: Params
    recipe: str | None = None
    fold: int = 0


def train_trial(
    config: ExperimentConfig, trial: Trial, *, report: Report = lambda _: None, threads: int = 1
) -> FoldResult:
    """Train on one fold; record, probabilities and weights are on disk before each report.

    So a trial that is stopped in its report, as ASHA does, has lost nothing.
    """
    torch.set_num_threads(threads)
    study = StudyFolder(config.study_folder)
    keep = _Keeper(study, trial)
    try:
        return _train(config, trial, keep, report, threads)
    except Exception as error:
        keep.fail(error)
        raise


def _train(
    config: ExperimentConfig, trial: Trial, keep: "_Keeper", report: Report, threads: int
) -> FoldResult:
    study = keep.study
    head, images = study.head(), fold_images(study)
    cache, rows = open_fold_images(config, trial.params, threads=threads)
    train, val = fold_rows(images, trial.fold)
    labels = images["label"].to_numpy(np.int64)
    fold = Fold(cache.pixels, rows[train], labels[train], rows[val], labels[val])
    task = Task(
        n_classes=len(head.classes),
        positive=None if head.positive is None else head.classes.index(head.positive),
        policy=config.policy,
        objective=config.objectives[0],
        epochs=config.fidelity.max_epochs,
        patience=config.fidelity.patience,
        weights=config.weights,
        seed=config.seed,
    )
    keys = images["image"].to_numpy()[val].tolist()

    def kept(epoch: Epoch) -> None:
        keep.epoch(epoch, keys, fold.val_labels, head.classes)
        report(epoch)

    device = "cuda" if torch.cuda.is_available() and config.resources.gpu > 0 else "cpu"
    return train_fold(fold, trial.params, task, device=device, report=kept)


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
        images, preprocessing, config.cache_folder, threads=threads, progress=progress
    )


class _Keeper:
    """Writes a trial's files after each epoch."""

    def __init__(self, study: StudyFolder, trial: Trial) -> None:
        self.study = study
        self.start = time.perf_counter()
        self.record = TrialRecord(
            number=trial.number,
            status="running",
            recipe=trial.recipe,
            params=trial.params,
            fold=trial.fold,
        )
        study.write_record(self.record)

    def epoch(
        self, epoch: Epoch, images: list[str], labels: NDArray[np.int64], classes: list[str]
    ) -> None:
        """Note an epoch; where it is the best so far, its probabilities and weights, too."""
        number = self.record.number
        update = {
            "epochs": [*self.record.epochs, finite(epoch.metrics)],
            "seconds": time.perf_counter() - self.start,
        }
        if epoch.improved:
            self.study.write_probs(number, images, epoch.probs, classes)
            self.study.write_weights(number, epoch.state)
            update |= {"value": epoch.value, "best_epoch": epoch.number}
            update["confusion"] = confusion(epoch.probs, labels).tolist()
            update["per_class"] = finite(per_class_report(epoch.probs, labels, classes))
        self.record = self.record.model_copy(update=update)
        self.study.write_record(self.record)

    def fail(self, error: Exception) -> None:
        """Note why the trial ends."""
        reason = " ".join(str(error).split()) or type(error).__name__
        update = {"status": "failed", "error": reason[:500], "again": _is_outside(error)}
        self.record = self.record.model_copy(update=update)
        self.study.write_record(self.record)


def _is_outside(error: Exception) -> bool:
    """Whether a trial failed by its surroundings, a full disk say, and not by its params."""
    return isinstance(error, OSError | CacheError)
