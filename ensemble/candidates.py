"""Candidates: finished trials of a study, and their probabilities on any of its images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ensemble.selection.sharpness import tempered_label_probs
from ensemble.views import N_VIEWS, view_pixels
from search.config import ExperimentConfig
from search.data.cache import cache_rows
from search.data.splits import CALIBRATION
from search.errors import StudyError
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import fold_images, open_fold_images
from search.training.backbones import Classifier, preprocessing_of, restore_classifier
from search.training.predict import predict_pixels
from search.training.thresholds import SUM_TOLERANCE

Probs = NDArray[np.float32]
ELSEWHERE = "search into another output folder"


@dataclass(frozen=True)
class Candidates:
    """Trials whose weights and out-of-fold probabilities are at hand.

    The best NLL after a temperature stands first.

    All on the same folds, the validating images of which are the rows, in the study's order.

    Attributes:
        records: of fold 0, one a candidate.
        oof_probs: (n_candidates, n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
        images: their keys in the study.
        folds: the fold that each image validates, (n_images,).
        networks: of each candidate, the folds whose weights are at hand.
    """

    records: list[TrialRecord]
    oof_probs: Probs
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    images: list[str]
    folds: NDArray[np.int64]
    networks: list[list[int]]


def load_candidates(study: StudyFolder) -> Candidates:
    """The candidates of a study: its finalists, on all folds.

    Where fewer than two trials have all folds, it is all trials with weights, on fold 0.

    Raises:
        StudyError: there is none; they were validated on different images; a probability is not
            one; or a fold lacks a class.
    """
    classes, images = study.head().classes, fold_images(study)
    records, folds = _at_hand(study, images)
    validating = images[images["fold"].isin(folds)].reset_index(drop=True)
    _refuse_missing_classes(study, validating, folds, classes)
    tables = [_table(study, record.number, folds, classes) for record in records]
    _refuse_other_rows(study, records, tables, validating)
    keys, labels = validating["image"].tolist(), validating["label"].to_numpy(np.int64)
    probs = np.stack([t.set_index("image").loc[keys, classes].to_numpy(np.float32) for t in tables])
    losses = [-np.log(tempered_label_probs(p, labels)).mean() for p in probs]
    ranked = np.argsort(losses, kind="stable")
    return Candidates(
        records=[records[i] for i in ranked],
        oof_probs=probs[ranked],
        labels=labels,
        groups=validating["group"].to_numpy(np.int64),
        images=keys,
        folds=validating["fold"].to_numpy(np.int64),
        networks=[list(folds) for _ in records],
    )


def calibration_images(study: StudyFolder) -> pd.DataFrame:
    """The slice of the open images that no trial trains or validates on.

    Raises:
        StudyError: there is none.
    """
    images = study.open_images()
    calibration = images[images["part"] == CALIBRATION].reset_index(drop=True)
    if calibration.empty:
        raise StudyError(
            f"{study.path}: no calibration slice; set splits.calibration above 0 and search again"
        )
    return calibration


def load_classifier(config: ExperimentConfig, record: TrialRecord, *, fold: int = 0) -> Classifier:
    """A candidate's network of a fold, in evaluation mode, on the CPU.

    Raises:
        StudyError: its weights were not kept, are damaged, or are of another classifier.
    """
    study = StudyFolder(config.study_folder)
    state = study.weights(record.number, fold=fold)
    try:
        return restore_classifier(record.params, len(study.head().classes), state)
    except RuntimeError as error:
        path = study.trial(record.number, fold) / "weights.safetensors"
        raise StudyError(f"{path}: not of a {record.params.backbone}; {ELSEWHERE}") from error


def candidate_pixels(
    config: ExperimentConfig, record: TrialRecord, images: pd.DataFrame, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Images as a candidate sees them, (n_images, size, size, 3), from the cache."""
    preprocessing = preprocessing_of(record.params)
    cache, rows = cache_rows(
        images, preprocessing, config.cache_folder, threads=threads, limit=config.cache_bytes
    )
    pixels: NDArray[np.uint8] = cache.pixels[rows]
    return pixels


def network_probs(
    config: ExperimentConfig,
    record: TrialRecord,
    images: pd.DataFrame,
    *,
    fold: int,
) -> Probs:
    """What one fold's network of a candidate says of images, (n_images, n_classes)."""
    classifier = load_classifier(config, record, fold=fold)
    return _probs(config, classifier, candidate_pixels(config, record, images))


def candidate_probs(
    config: ExperimentConfig,
    record: TrialRecord,
    images: pd.DataFrame,
    *,
    folds: Sequence[int],
) -> Probs:
    """A candidate's probabilities of images, (n_images, n_classes): the mean of its networks'.

    Args:
        images: that none of the networks has seen, such as the calibration slice.
        folds: of its networks.
    """
    return _mean([network_probs(config, record, images, fold=f) for f in folds])


def oof_views(
    config: ExperimentConfig, candidates: Candidates, index: int, rows: NDArray[np.int64]
) -> Probs:
    """A candidate's out-of-fold probabilities of each dihedral view, (8, n_rows, n_classes).

    Each fold's network is asked about the images of its own fold, which it was not trained on.

    Args:
        rows: of the candidates' images.
    """
    record = candidates.records[index]
    cache, places = open_fold_images(config, record.params)
    names = fold_images(StudyFolder(config.study_folder))["image"]
    place_of = dict(zip(names, places, strict=True))
    ours = np.array([place_of[candidates.images[row]] for row in rows], np.int64)
    n_classes = candidates.oof_probs.shape[2]
    probs: Probs = np.zeros((N_VIEWS["dihedral"], len(rows), n_classes), np.float32)
    for fold in candidates.networks[index]:
        inside = np.flatnonzero(candidates.folds[rows] == fold)
        if not len(inside):
            continue
        classifier = load_classifier(config, record, fold=fold)
        for v, view in enumerate(view_pixels(cache.pixels[ours[inside]], "dihedral")):
            probs[v, inside] = _probs(config, classifier, view)
    return probs


def device_of(config: ExperimentConfig) -> str:
    """Where networks work here: on the GPU if the study's trials may use one and it is there."""
    return "cuda" if config.resources.gpu > 0 and torch.cuda.is_available() else "cpu"


def _probs(config: ExperimentConfig, classifier: Classifier, pixels: NDArray[np.uint8]) -> Probs:
    device, rows = device_of(config), np.arange(len(pixels))
    return predict_pixels(classifier.to(device), pixels, rows, device=device)


def _mean(probs: list[Probs]) -> Probs:
    mean: Probs = np.stack(probs).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _at_hand(study: StudyFolder, images: pd.DataFrame) -> tuple[list[TrialRecord], list[int]]:
    """Finished trials with weights, by number, and the folds that all of them have."""
    kept, further = study.kept_weights(), sorted(set(images["fold"].tolist()) - {-1, 0})
    found = [r for r in study.records() if r.number in kept and _is_finished(r)]
    if not found:
        raise StudyError(
            f"{study.path}: no finished trial has weights; run consilium search until one is done"
        )
    weights = set(study.fold_names("weights.safetensors"))
    full = [
        r
        for r in found
        if all((r.number, fold) in weights for fold in further)
        and {f.fold for f in study.fold_records(r.number) if f.status == "complete"} >= {*further}
    ]
    return (full, [0, *further]) if len(full) > 1 else (found, [0])


def _is_finished(record: TrialRecord) -> bool:
    ended = record.status in ("complete", "pruned")
    return ended and record.value is not None and not record.again


def _table(study: StudyFolder, number: int, folds: list[int], classes: list[str]) -> pd.DataFrame:
    """A candidate's probabilities on all folds, checked: image, fold, a column a class."""
    tables = []
    for fold in folds:
        table = study.probs(number, fold=fold)
        if problem := _problem(table, classes):
            path = study.trial(number, fold) / "probs.parquet"
            raise StudyError(f"{path}: trial {number} {problem}; {ELSEWHERE}")
        tables.append(table.assign(fold=fold))
    return pd.concat(tables, ignore_index=True)


def _problem(table: pd.DataFrame, classes: list[str]) -> str | None:
    """What keeps a table's numbers from being probabilities, and of which image first."""
    if list(table.columns) != ["image", *classes]:
        return f"has other columns than image, {', '.join(classes)}"
    probs = table[classes].to_numpy(np.float64)
    finite = np.isfinite(probs).all(axis=1)
    off = np.abs(probs.sum(axis=1) - 1)
    for wrong, what in (
        (~finite, "has NaN or infinite probabilities"),
        ((probs < 0).any(axis=1), "has negative probabilities"),
        (off > SUM_TOLERANCE, "has probabilities that do not sum to 1"),
    ):
        if wrong.any():
            return f"{what}, the first of image {table['image'].to_numpy()[wrong][0]}"
    return None


def _refuse_other_rows(
    study: StudyFolder,
    records: list[TrialRecord],
    tables: list[pd.DataFrame],
    validating: pd.DataFrame,
) -> None:
    """Candidates can only be compared on the same images, and in the same folds."""
    found = [sorted(zip(table["image"], table["fold"], strict=True)) for table in tables]
    for record, rows in zip(records, found, strict=True):
        if rows != found[0]:
            raise StudyError(
                f"{study.path}: trials {records[0].number} and {record.number} were validated on "
                f"different images; {ELSEWHERE}"
            )
    if found[0] != sorted(zip(validating["image"], validating["fold"], strict=True)):
        raise StudyError(
            f"{study.path}: trial {records[0].number} was validated on other images than "
            f"splits.parquet names; {ELSEWHERE}"
        )


def _refuse_missing_classes(
    study: StudyFolder, validating: pd.DataFrame, folds: list[int], classes: list[str]
) -> None:
    for fold in folds:
        there = set(validating.loc[validating["fold"] == fold, "label"].tolist())
        missing = [name for i, name in enumerate(classes) if i not in there]
        if missing:
            raise StudyError(
                f"{study.path}: class {missing[0]!r} has no image in fold {fold}; lower "
                f"splits.folds, or join it with another under dataset.classes, and {ELSEWHERE}"
            )
