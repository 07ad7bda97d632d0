"""Candidates: finished trials of a study, and their probabilities on any of its images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.config import ExperimentConfig
from search.data.cache import cache_rows
from search.data.splits import CALIBRATION
from search.errors import StudyError
from search.study.records import StudyFolder, TrialRecord
from search.training.backbones import Classifier, preprocessing_of, restore_classifier
from search.training.metrics import nll
from search.training.predict import predict_pixels


@dataclass(frozen=True)
class Candidates:
    """Trials whose weights and out-of-fold probabilities are at hand, best NLL first.

    Attributes:
        records: one a candidate.
        oof_probs: (n_candidates, n_images, n_classes) on the validation images of fold 0.
        labels: class indices of these images, (n_images,).
    """

    records: list[TrialRecord]
    oof_probs: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_candidates(study: StudyFolder) -> Candidates:
    """Candidates of a study.

    Raises:
        StudyError: there is none, or candidates were validated on different images.
    """
    classes = study.head().classes
    found = [
        r for r in study.records() if r.status in ("complete", "pruned") and _at_hand(study, r)
    ]
    if not found:
        raise StudyError(f"{study.path}: no finished trial has weights; run consilium search first")
    tables = [study.probs(record.number) for record in found]
    for record, table in zip(found, tables, strict=True):
        if table["image"].tolist() != tables[0]["image"].tolist():
            raise StudyError(
                f"{study.path}: trials {found[0].number} and {record.number} were validated on "
                "different images; search into another output folder"
            )
    open_images = study.open_images().set_index("image")
    labels = open_images["label"].reindex(tables[0]["image"]).to_numpy(np.int64)
    probs = np.stack([table[classes].to_numpy(np.float32) for table in tables])
    ranked = np.argsort([nll(p, labels) for p in probs], kind="stable")
    return Candidates([found[i] for i in ranked], probs[ranked], labels)


def load_classifier(config: ExperimentConfig, record: TrialRecord) -> Classifier:
    """A trial's classifier with its best weights, in evaluation mode."""
    study = StudyFolder(config.study_folder)
    n_classes = len(study.head().classes)
    return restore_classifier(record.params, n_classes, study.weights(record.number))


def calibration_images(study: StudyFolder) -> pd.DataFrame:
    images = study.open_images()
    calibration = images[images["part"] == CALIBRATION].reset_index(drop=True)
    if calibration.empty:
        raise StudyError(
            f"{study.path}: no calibration slice; set splits.calibration above 0 and search again"
        )
    return calibration


def candidate_pixels(
    config: ExperimentConfig, record: TrialRecord, images: pd.DataFrame, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Images as a candidate sees them, (n_images, size, size, 3), from the cache."""
    preprocessing = preprocessing_of(record.params)
    cache, rows = cache_rows(images, preprocessing, config.cache_folder, threads=threads)
    pixels: NDArray[np.uint8] = cache.pixels[rows]
    return pixels


def candidate_probs(
    config: ExperimentConfig, record: TrialRecord, images: pd.DataFrame
) -> NDArray[np.float32]:
    """A candidate's own probabilities of images, (n_images, n_classes)."""
    pixels = candidate_pixels(config, record, images)
    return predict_pixels(load_classifier(config, record), pixels, np.arange(len(pixels)))


def _at_hand(study: StudyFolder, record: TrialRecord) -> bool:
    return study.has_weights(record.number) and record.value is not None
