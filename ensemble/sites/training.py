"""A classifier without one site: trained on the others, asked about their rest and the site."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ensemble.candidates import device_of
from ensemble.refit import refit_task
from ensemble.sites.division import Division
from search.config import ExperimentConfig
from search.data.cache import cache_rows
from search.errors import StudyError
from search.objectives import minimised
from search.study.records import StudyFolder, TrialRecord
from search.training.backbones import preprocessing_of, restore_classifier
from search.training.batches import Fold
from search.training.features import cached_features, is_headonly
from search.training.predict import predict_pixels
from search.training.train import train_fold

Probs = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What a classifier without the site says, before any calibration.

    Attributes:
        home: of the others' held-back images, (n_held_back, n_classes).
        away: of the site's, (n_left_out, n_classes).
        seconds: wall time of training and asking.
    """

    home: Probs
    away: Probs
    seconds: float


def train_without(
    config: ExperimentConfig,
    record: TrialRecord,
    images: pd.DataFrame,
    division: Division,
    *,
    n_classes: int,
    threads: int = 1,
) -> Answers:
    """Train a trial's params on the others; nothing is chosen here on the site or the held-back.

    It trains as many epochs as the trial's best one was, at the learning rates that led there: that
    the search chose with all sites. The same seed, threads and machine give the same probabilities.

    Args:
        images: open images, as `Division` counts them.

    Raises:
        StudyError: the trial has no best epoch.
        TrainingError: the loss is not a number.
    """
    start, before = time.perf_counter(), torch.get_num_threads()
    task = refit_task(config, record, n_classes=n_classes)
    device, params = device_of(config), record.params
    cache, rows = cache_rows(
        images,
        preprocessing_of(params),
        config.cache_folder,
        threads=threads,
        limit=config.cache_bytes,
    )
    labels, train = images["label"].to_numpy(np.int64), division.train
    # Training asks for images to validate on: one of its own, whose metrics nothing goes by.
    fold = Fold(cache.pixels, rows[train], labels[train], rows[train[:1]], labels[train[:1]])
    features = partial(cached_features, cache, params) if is_headonly(params) else None
    torch.set_num_threads(threads)
    try:
        state = train_fold(fold, params, task, device=device, features=features).state
        classifier = restore_classifier(params, n_classes, state).to(device)
        home, away = (
            predict_pixels(classifier, cache.pixels, rows[part], device=device)
            for part in (division.held_back, division.left_out)
        )
    finally:
        torch.set_num_threads(before)
    return Answers(home, away, time.perf_counter() - start)


def best_trial(study: StudyFolder, number: int | None = None) -> TrialRecord:
    """A finished trial by its number, or the best one by the study's objective.

    Raises:
        StudyError: there is none, or it is not finished.
    """
    records = {r.number: r for r in study.records()}
    finished = [r for r in records.values() if _is_finished(r)]
    if number is not None and number not in {r.number for r in finished}:
        state = f"is {records[number].status}" if number in records else "is not there"
        some = ", ".join(str(r.number) for r in finished[:20]) or "none"
        raise StudyError(f"{study.path}: trial {number} {state}; finished are {some}")
    if number is not None:
        return records[number]
    allowed = [r for r in finished if not r.violations]
    if not allowed:
        raise StudyError(f"{study.path}: no trial is finished; run consilium search until one is")
    sign = 1 if minimised(study.head().objective) else -1
    return min(allowed, key=lambda r: (sign * (r.value or 0.0), r.number))


def _is_finished(record: TrialRecord) -> bool:
    ended = record.status in ("complete", "pruned") and not record.again
    return ended and record.value is not None and record.best_epoch is not None
