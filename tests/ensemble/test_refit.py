"""A refitted network learns from all folds, from nothing else, and as long as fold 0 chose."""

from typing import Any

import numpy as np
import pytest
import torch

from ensemble import refit
from ensemble.candidates import calibration_images, candidate_pixels
from ensemble.refit import Refitted, refit_network
from search.config import ExperimentConfig
from search.errors import StudyError
from search.study.records import StudyFolder, TrialRecord
from search.training.batches import Fold
from search.training.metrics import nll
from search.training.predict import predict_pixels
from search.training.task import FoldResult, Task
from search.training.train import train_fold


@pytest.fixture
def record(study: ExperimentConfig) -> TrialRecord:
    return StudyFolder(study.study_folder).record(0)


@pytest.fixture(scope="module")
def refitted(study: ExperimentConfig) -> Refitted:
    return refit_network(study, StudyFolder(study.study_folder).record(0), threads=1)


class Spy:
    """Stands in for train_fold, notes what it is asked to do, and passes it on."""

    def __init__(self) -> None:
        self.folds: list[Fold] = []
        self.tasks: list[Task] = []
        self.options: list[dict[str, Any]] = []

    def __call__(self, fold: Fold, params: Any, task: Task, **options: Any) -> FoldResult:
        self.folds.append(fold)
        self.tasks.append(task)
        self.options.append(options)
        return train_fold(fold, params, task, **options)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy = Spy()
    monkeypatch.setattr(refit, "train_fold", spy)
    return spy


def test_it_trains_on_every_image_of_the_folds_and_on_no_other(
    study: ExperimentConfig, record: TrialRecord, spy: Spy
) -> None:
    refit_network(study, record, threads=1)
    (fold,) = spy.folds
    images = StudyFolder(study.study_folder).open_images()
    train = images[images["part"] == "train"].reset_index(drop=True)
    seen = fold.pixels[fold.train_rows]
    np.testing.assert_array_equal(seen, candidate_pixels(study, record, train))
    assert fold.train_labels.tolist() == train["label"].tolist()
    assert set(fold.val_rows.tolist()) <= set(fold.train_rows.tolist())
    held_back = candidate_pixels(study, record, calibration_images(StudyFolder(study.study_folder)))
    assert not {p.tobytes() for p in fold.pixels} & {p.tobytes() for p in held_back}


def test_it_trains_as_long_as_fold_0_chose_at_its_learning_rates(
    study: ExperimentConfig, record: TrialRecord, spy: Spy
) -> None:
    heard: list[tuple[int, int]] = []
    shorter = record.model_copy(update={"best_epoch": 2})
    refit_network(study, shorter, threads=1, progress=lambda *told: heard.append(told))
    (task,) = spy.tasks
    assert heard == [(1, 2), (2, 2)]
    assert (task.fixed_epochs, task.epochs) == (2, study.fidelity.max_epochs)
    assert task.plateau_nll == tuple(epoch["nll"] for epoch in record.epochs)


def test_what_it_validates_on_changes_nothing(
    study: ExperimentConfig, record: TrialRecord, refitted: Refitted, monkeypatch: Any
) -> None:
    def elsewhere(fold: Fold, params: Any, task: Task, **options: Any) -> FoldResult:
        other = Fold(fold.pixels, fold.train_rows, fold.train_labels, fold.train_rows[5:9],
                     1 - fold.train_labels[5:9])  # fmt: skip
        return train_fold(other, params, task, **options)

    monkeypatch.setattr(refit, "train_fold", elsewhere)
    again = refit_network(study, record, threads=1)
    assert all(torch.equal(again.state[name], value) for name, value in refitted.state.items())


def test_it_predicts_held_back_images_better_than_their_prevalence_does(
    study: ExperimentConfig, record: TrialRecord, refitted: Refitted
) -> None:
    images = calibration_images(StudyFolder(study.study_folder))
    labels = images["label"].to_numpy(np.int64)
    pixels = candidate_pixels(study, record, images)
    probs = predict_pixels(refitted.classifier, pixels, np.arange(len(pixels)))
    assert not refitted.classifier.training
    assert refitted.seconds > 0
    shares = np.bincount(labels) / len(labels)
    assert nll(probs, labels) < nll(np.tile(shares, (len(labels), 1)), labels)


def test_the_seed_decides_the_weights(
    study: ExperimentConfig, record: TrialRecord, refitted: Refitted
) -> None:
    one = record.model_copy(update={"best_epoch": 1})
    first, same = (refit_network(study, one, threads=1).state for _ in range(2))
    other = refit_network(study.model_copy(update={"seed": 1}), one, threads=1).state
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_threads_are_as_before(study: ExperimentConfig, record: TrialRecord) -> None:
    before = torch.get_num_threads()
    refit_network(study, record.model_copy(update={"best_epoch": 1}), threads=before + 1)
    assert torch.get_num_threads() == before


def test_a_frozen_trunk_learns_from_its_features(
    study: ExperimentConfig, record: TrialRecord, spy: Spy
) -> None:
    still = {**record.params.model_dump(exclude={"augment"}), "unfreeze": 0}
    params = type(record.params).model_validate(still)
    refit_network(study, record.model_copy(update={"params": params}), threads=1)
    assert spy.options[0]["features"] is not None


def test_a_trial_without_a_chosen_epoch_is_refused(
    study: ExperimentConfig, record: TrialRecord
) -> None:
    with pytest.raises(StudyError, match=r"^trial 0 has no best epoch to refit for; set ensemble"):
        refit_network(study, record.model_copy(update={"best_epoch": None}))
