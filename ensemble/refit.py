"""A refitted network: one candidate's params trained once more, on the images of all folds."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ensemble.candidates import device_of
from search.config import ExperimentConfig
from search.data.cache import Progress
from search.errors import StudyError
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import fold_images, open_fold_images
from search.training.backbones import Classifier, restore_classifier
from search.training.batches import Fold
from search.training.features import cached_features, is_headonly
from search.training.task import Epoch, Task
from search.training.train import train_fold

OBJECTIVE = "nll"  # nothing goes by it; it is a number for any labels


@dataclass(frozen=True)
class Refitted:
    """A network of all folds.

    Attributes:
        state: its weights, as `Classifier.state_dict` gives them.
        classifier: restored from them, on the CPU, in evaluation mode.
        seconds: wall time of decoding and training.
    """

    state: dict[str, Tensor]
    classifier: Classifier
    seconds: float


def refit_network(
    config: ExperimentConfig,
    record: TrialRecord,
    *,
    threads: int = 2,
    progress: Progress = lambda *_: None,
) -> Refitted:
    """Train a candidate's params on every image of the folds, never on a held-back one.

    It trains as many epochs as fold 0 chose, at the learning rates they led to, as a finalist's
    other folds do; an epoch has the more steps the more images it has. The same seed, threads and
    machine give the same weights.

    Args:
        record: of fold 0.
        progress: called with (epochs done, epochs in all).

    Raises:
        StudyError: no epoch of fold 0 was chosen.
        TrainingError: the loss is not a number.
    """
    if record.best_epoch is None:
        raise StudyError(
            f"trial {record.number} has no best epoch to refit for; set ensemble.refit to false"
        )
    start, before = time.perf_counter(), torch.get_num_threads()
    study = StudyFolder(config.study_folder)
    head, images = study.head(), fold_images(study)
    cache, rows = open_fold_images(config, record.params, threads=threads)
    labels = images["label"].to_numpy(np.int64)
    # Training asks for images to validate on: an image of its own, whose metrics nothing goes by.
    fold = Fold(cache.pixels, rows, labels, rows[:1], labels[:1])
    task = refit_task(config, record, n_classes=len(head.classes))
    features = partial(cached_features, cache, record.params)

    def told(epoch: Epoch) -> None:
        progress(epoch.number, record.best_epoch or 0)

    torch.set_num_threads(threads)
    try:
        result = train_fold(
            fold,
            record.params,
            task,
            device=device_of(config),
            report=told,
            features=features if is_headonly(record.params) else None,
        )
    finally:
        torch.set_num_threads(before)
    classifier = restore_classifier(record.params, task.n_classes, result.state)
    return Refitted(result.state, classifier, time.perf_counter() - start)


def refit_task(config: ExperimentConfig, record: TrialRecord, *, n_classes: int) -> Task:
    """As search.study.finalists asks for a further fold: fixed epochs, plateaus as fold 0 told.

    Raises:
        StudyError: no epoch of fold 0 was chosen.
    """
    if record.best_epoch is None:
        raise StudyError(
            f"trial {record.number} has no best epoch to train again for; name another"
        )
    return Task(
        n_classes=n_classes,
        positive=None,
        policy=config.policy,
        objective=OBJECTIVE,
        epochs=config.fidelity.max_epochs,
        fixed_epochs=record.best_epoch,
        plateau_nll=tuple(epoch["nll"] or 0.0 for epoch in record.epochs),
        weights=config.weights,
        seed=config.seed,
    )
