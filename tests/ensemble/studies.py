"""Small whole studies for the ensemble's tests: real images, splits, trials and weights; no Ray."""

import shutil
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from search.atomic import write_text
from search.config import ExperimentConfig, load_config
from search.data.synthetic import write_dataset
from search.location import Place
from search.params import Params
from search.portfolio import load_portfolio
from search.study.intake import take_in
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import Trial, train_trial

PARAMS: dict[str, Any] = {"backbone": "cnn", "image_size": 32, "hidden": 8, "dropout": 0.1}
SPREAD = 0.45  # of the tints within a class; that of the classes is 1
COLUMNS = {
    "image": "image_id",
    "label": "diagnosis",
    "lesion": "lesion_id",
    "patient": "patient_id",
    **{name: name for name in ("age", "sex", "site")},
}


def write_study(
    folder: Path,
    *,
    n_images: int = 240,
    classes: Sequence[str] = ("benign", "malignant"),
    positive: str | None = "malignant",
    n_trials: int = 4,
    folds: int = 3,
    finalists: int = 3,
    seed: int = 0,
) -> ExperimentConfig:
    """A study as a finished search leaves it, but for its Optuna storage.

    Trial 0 is the recipe custom_cnn. The first `finalists` trials have probabilities and weights of
    every fold, the others of fold 0; those were pruned. The first half of the classes (the larger
    one) are the synthetic benign lesions, the others the malignant ones. The images of each class
    have a tint that overlaps with the next one's, for there is little to see at 32 pixels.

    Args:
        folder: receives data/, tiny.yaml and out/study; the cache comes to lie in out/cache.

    Returns:
        the experiment of tiny.yaml.
    """
    write_dataset(folder / "data", n_images=n_images, seed=seed, size=48, difficulty=0.2)
    _diagnose(folder / "data", classes, seed)
    path, document = folder / "tiny.yaml", _document(classes, positive, folds, finalists, seed)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    config = load_config(path)
    study = _begin(config)
    for number in range(n_trials):
        _train_fold_0(config, study, number, complete=number < max(finalists, 1))
        for fold in study.further_folds() if number < finalists else []:
            _train_further(config, study, number, fold)
    return config


def copy_study(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The same study in another output folder, where a test may damage it; the cache is shared."""
    shutil.copytree(str(config.study_folder), folder / "study")
    return config.model_copy(update={"output": folder, "cache": config.cache_folder})


def file_of(config: ExperimentConfig, number: int, name: str, *, fold: int = 0) -> Place:
    """A file of a trial."""
    return StudyFolder(config.study_folder).trial(number, fold) / name


def _document(
    classes: Sequence[str], positive: str | None, folds: int, finalists: int, seed: int
) -> dict[str, Any]:
    source = {"table": "data/diagnoses.csv", "images": ["data/images"], "columns": COLUMNS}
    return {
        "name": "tiny",
        "seed": seed,
        "output": "out",
        "dataset": {
            "sources": [source],
            "classes": {name: [name] for name in classes},
            "positive": positive,
        },
        "splits": {"test": 0.25, "calibration": 0.25, "folds": folds},
        "portfolio": {"recipes": ["custom_cnn"], "override": {"image_size": 32, "hidden": 8}},
        "space": {**PARAMS, "lr": {"low": 1e-4, "high": 1e-2, "log": True}},
        "fidelity": {"max_epochs": 3, "finalists": finalists},
        "ensemble": {"golden": 2, "bootstrap": 100, "corruptions": 8},
    }


def _diagnose(data: Path, classes: Sequence[str], seed: int) -> None:
    """Write diagnoses.csv, the table with a class each lesion, and tint the images by class."""
    table = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)
    half = (len(classes) + 1) // 2
    lesions = table.drop_duplicates("lesion_id").set_index("lesion_id")["dx"]
    name_of: dict[Hashable, str] = {}
    for dx, names in (("benign", classes[:half]), ("malignant", classes[half:])):
        own = lesions.index[lesions == dx]
        name_of |= {lesion: names[i % len(names)] for i, lesion in enumerate(own)}
    table["diagnosis"] = table["lesion_id"].map(name_of)
    table.to_csv(data / "diagnoses.csv", index=False)
    rng = np.random.default_rng(seed)
    shade_of = {lesion: rng.normal(0, SPREAD) for lesion in lesions.index}
    for image, lesion in zip(table["image_id"], table["lesion_id"], strict=True):
        level = classes.index(name_of[lesion]) / (len(classes) - 1) + shade_of[lesion]
        _tint(data / "images" / f"{image}.jpg", level)


def _tint(path: Path, level: float) -> None:
    """Darken an image, and turn it from blue to red, by a level that is 0 to 1 for the classes."""
    with Image.open(path) as image:
        pixels = np.asarray(image, np.float64)
    pixels = pixels * [0.9 - 0.3 * level, 0.9 - 0.45 * level, 0.9 - 0.6 * level]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def _begin(config: ExperimentConfig) -> StudyFolder:
    study = StudyFolder(config.study_folder)
    study.create()
    head = take_in(config, study)
    document = config.model_dump(mode="json", exclude_none=True)
    write_text(study.path / "config.yaml", yaml.safe_dump(document, sort_keys=False))
    study.write_head(head)
    return study


def _trial(config: ExperimentConfig, study: StudyFolder, number: int) -> Trial:
    if number == 0:
        n_classes = len(study.head().classes)
        params = load_portfolio(config.portfolio, n_classes=n_classes)["custom_cnn"]
        return Trial(number, params, "custom_cnn")
    lr = (3e-3, 1e-3, 3e-4)[(number - 1) % 3]
    changes = {"lr": lr, "batch_size": 8, "grayscale": number % 3 == 2}
    return Trial(number, Params.model_validate(PARAMS | changes))


def _train_fold_0(
    config: ExperimentConfig, study: StudyFolder, number: int, *, complete: bool
) -> None:
    train_trial(config, _trial(config, study, number))
    _end(study, study.record(number), status="complete" if complete else "pruned")


def _train_further(config: ExperimentConfig, study: StudyFolder, number: int, fold: int) -> None:
    """As search.study.finalists does: as many epochs as fold 0 chose, none picked here."""
    first = study.record(number)
    told = tuple(epoch["nll"] or 0.0 for epoch in first.epochs)
    trial = Trial(number, first.params, first.recipe, fold, first.best_epoch, told)
    train_trial(config, trial)
    _end(study, study.record(number, fold=fold), status="complete")


def _end(study: StudyFolder, record: TrialRecord, *, status: str) -> None:
    """What the search adds; the costs are made up, for a measured one is another each time."""
    costs = {"params_m": 0.11 + record.number / 1000, "latency_ms": 1.0 + record.number}
    study.write_record(record.model_copy(update={"status": status, "costs": costs}))
