"""Candidates come aligned, best first, and what they say can be had again from their networks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.candidates import (
    Candidates,
    calibration_images,
    candidate_pixels,
    candidate_probs,
    load_candidates,
    load_classifier,
    network_probs,
    oof_views,
)
from ensemble.views import view_pixels
from search.config import ExperimentConfig
from search.errors import StudyError
from search.study.records import StudyFolder
from search.tables import read_table, write_table
from search.training.metrics import nll
from search.training.predict import predict_pixels
from tests.ensemble.studies import copy_study, file_of

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def folder(study: ExperimentConfig) -> StudyFolder:
    return StudyFolder(study.study_folder)


@pytest.fixture(scope="module")
def loaded(study: ExperimentConfig) -> Candidates:
    return load_candidates(StudyFolder(study.study_folder))


@pytest.fixture
def copy(study: ExperimentConfig, tmp_path: Path) -> ExperimentConfig:
    return copy_study(study, tmp_path)


def load(config: ExperimentConfig) -> Candidates:
    return load_candidates(StudyFolder(config.study_folder))


def change(config: ExperimentConfig, number: int, by: Change, *, fold: int = 0) -> None:
    path = file_of(config, number, "probs.parquet", fold=fold)
    write_table(path, by(read_table(path)))


def drop_further(config: ExperimentConfig, numbers: list[int]) -> None:
    """As if trials were no finalists."""
    for number in numbers:
        for fold in (1, 2):
            shutil.rmtree(str(StudyFolder(config.study_folder).trial(number, fold)))


def note(
    config: ExperimentConfig, number: int, update: dict[str, object], *, fold: int = 0
) -> None:
    study = StudyFolder(config.study_folder)
    study.write_record(study.record(number, fold=fold).model_copy(update=update))


def test_the_finalists_are_the_candidates_on_all_folds_best_first(
    loaded: Candidates, folder: StudyFolder
) -> None:
    assert sorted(record.number for record in loaded.records) == [0, 1, 2]
    assert loaded.networks == [[0, 1, 2]] * 3
    losses = [nll(probs, loaded.labels) for probs in loaded.oof_probs]
    assert losses == sorted(losses)
    assert loaded.oof_probs.shape == (3, folder.head().n_images["train"], 2)
    assert loaded.oof_probs.dtype == np.float32


def test_rows_are_the_study_s_images_with_label_group_and_fold(
    loaded: Candidates, folder: StudyFolder
) -> None:
    images = folder.open_images().set_index("image").loc[loaded.images]
    assert set(images["part"]) == {"train"}
    assert loaded.labels.tolist() == images["label"].tolist()
    assert loaded.groups.tolist() == images["group"].tolist()
    assert loaded.folds.tolist() == images["fold"].tolist()
    for record, probs in zip(loaded.records, loaded.oof_probs, strict=True):
        table = folder.oof_probs(record.number).set_index("image").loc[loaded.images]
        np.testing.assert_array_equal(probs, table[["benign", "malignant"]])


def test_rows_in_another_order_are_aligned_by_their_image(
    copy: ExperimentConfig, loaded: Candidates
) -> None:
    change(copy, 1, lambda table: table.iloc[::-1], fold=1)
    np.testing.assert_array_equal(load(copy).oof_probs, loaded.oof_probs)


def test_four_classes_load_as_two_do(multiclass_study: ExperimentConfig) -> None:
    found = load(multiclass_study)
    assert found.oof_probs.shape[2] == 4
    assert set(found.labels.tolist()) == {0, 1, 2, 3}


def test_equally_good_candidates_come_by_number(copy: ExperimentConfig) -> None:
    for number in (0, 2):
        for fold in (0, 1, 2):
            path = file_of(copy, 1, "probs.parquet", fold=fold)
            table = read_table(path)
            change(copy, number, lambda _, table=table: table, fold=fold)  # type: ignore[misc]
    assert [record.number for record in load(copy).records] == [0, 1, 2]


def test_with_one_finalist_all_trials_with_weights_are_candidates_on_fold_0(
    copy: ExperimentConfig,
) -> None:
    drop_further(copy, [0, 2])
    found = load(copy)
    assert sorted(record.number for record in found.records) == [0, 1, 2, 3]
    assert found.networks == [[0]] * 4
    assert set(found.folds.tolist()) == {0}


@pytest.mark.parametrize("lacks", ["weights", "record"])
def test_a_finalist_that_lacks_a_fold_is_none(copy: ExperimentConfig, lacks: str) -> None:
    if lacks == "weights":
        StudyFolder(copy.study_folder).drop_weights(1, fold=2)
    else:
        note(copy, 1, {"status": "failed"}, fold=2)
    assert sorted(record.number for record in load(copy).records) == [0, 2]


@pytest.mark.parametrize(
    "update",
    [{"status": "failed"}, {"status": "running"}, {"value": None}, {"again": True}],
    ids=["failed", "running", "no value", "done again"],
)
def test_what_did_not_finish_is_no_candidate(
    copy: ExperimentConfig, update: dict[str, object]
) -> None:
    note(copy, 1, update)
    assert sorted(record.number for record in load(copy).records) == [0, 2]


def test_a_study_of_one_holdout_gives_candidates_of_one_network(copy: ExperimentConfig) -> None:
    study = StudyFolder(copy.study_folder)
    images = study.open_images()
    images["fold"] = images["fold"].where(images["fold"] == 0, -1)
    write_table(study.path / "splits.parquet", images)
    found = load(copy)
    assert found.networks == [[0]] * 4
    assert set(found.folds.tolist()) == {0}


def test_without_weights_there_is_no_candidate(copy: ExperimentConfig) -> None:
    for number in range(4):
        StudyFolder(copy.study_folder).drop_weights(number)
    with pytest.raises(StudyError, match=r"study: no finished trial has weights; run consilium"):
        load(copy)


@pytest.mark.parametrize("times", [0, 2])
def test_candidates_of_different_images_are_refused(copy: ExperimentConfig, times: int) -> None:
    change(copy, 2, lambda table: pd.concat([table.iloc[1:], *[table.iloc[:1]] * times]))
    with pytest.raises(
        StudyError,
        match=r"trials 0 and 2 were validated on different images; search into another output",
    ):
        load(copy)


def test_images_that_the_splits_do_not_name_are_refused(copy: ExperimentConfig) -> None:
    for number in range(3):
        change(copy, number, lambda table: table.iloc[1:])
    with pytest.raises(StudyError, match=r"trial 0 was validated on other images than splits"):
        load(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan, 0.5], r"has NaN or infinite probabilities"),
        ([np.inf, 0.5], r"has NaN or infinite probabilities"),
        ([1.5, -0.5], r"has negative probabilities"),
        ([0.5, 0.6], r"has probabilities that do not sum to 1"),
    ],
)
def test_what_are_no_probabilities_is_refused_by_trial_file_and_image(
    copy: ExperimentConfig, values: list[float], message: str
) -> None:
    def spoil(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[1, ["benign", "malignant"]] = np.array(values, np.float32)
        return table

    image = StudyFolder(copy.study_folder).probs(2, fold=1)["image"][1]
    change(copy, 2, spoil, fold=1)
    where = r"00002/fold_1/probs.parquet: trial 2 "
    with pytest.raises(StudyError, match=f"{where}{message}, the first of image {image}; search"):
        load(copy)


def test_other_classes_are_refused(copy: ExperimentConfig) -> None:
    change(copy, 0, lambda table: table.rename(columns={"benign": "naevus"}))
    with pytest.raises(StudyError, match=r"trial 0 has other columns than image, benign, malig"):
        load(copy)


def test_a_class_missing_in_a_fold_is_named(copy: ExperimentConfig) -> None:
    study = StudyFolder(copy.study_folder)
    images = study.open_images()
    images.loc[(images["fold"] == 2) & (images["label"] == 1), "label"] = 0
    write_table(study.path / "splits.parquet", images)
    with pytest.raises(
        StudyError, match=r"class 'malignant' has no image in fold 2; lower splits.folds, or join"
    ):
        load(copy)
    drop_further(copy, [0, 1, 2])
    assert load(copy).networks == [[0]] * 4  # who need fold 0 alone


def test_the_calibration_slice_is_apart_from_the_candidates_images(
    loaded: Candidates, folder: StudyFolder
) -> None:
    images = calibration_images(folder)
    assert len(images) == folder.head().n_images["calibration"]
    assert not {*images["image"]} & {*loaded.images}
    assert not {*images["group"]} & {*loaded.groups.tolist()}


def test_no_calibration_slice_is_refused(copy: ExperimentConfig) -> None:
    study = StudyFolder(copy.study_folder)
    images = study.open_images()
    write_table(study.path / "splits.parquet", images[images["part"] == "train"])
    with pytest.raises(StudyError, match=r"no calibration slice; set splits.calibration above 0"):
        calibration_images(study)


def test_each_network_gives_its_fold_s_probabilities_again(
    study: ExperimentConfig, loaded: Candidates
) -> None:
    rows = np.arange(len(loaded.labels))
    for index in range(len(loaded.records)):
        upright = oof_views(study, loaded, index, rows)[0]
        np.testing.assert_allclose(upright, loaded.oof_probs[index], atol=1e-5)


def test_each_view_is_asked_of_the_network_of_the_image_s_fold(
    study: ExperimentConfig, loaded: Candidates
) -> None:
    rows = np.flatnonzero(loaded.folds == 1)
    found = oof_views(study, loaded, 0, rows)
    assert found.shape == (8, len(rows), 2)
    images = StudyFolder(study.study_folder).open_images().set_index("image", drop=False)
    own = images.loc[np.array(loaded.images)[rows]].reset_index(drop=True)
    pixels = candidate_pixels(study, loaded.records[0], own)
    network = load_classifier(study, loaded.records[0], fold=1)
    turned = view_pixels(pixels, "dihedral")[5]
    expected = predict_pixels(network, turned, np.arange(len(turned)))
    np.testing.assert_allclose(found[5], expected, atol=1e-5)
    assert np.abs(found[5] - found[0]).max() > 1e-4


def test_a_candidate_s_probabilities_are_the_mean_of_its_networks(
    study: ExperimentConfig, loaded: Candidates, folder: StudyFolder
) -> None:
    images, record = calibration_images(folder), loaded.records[1]
    each = [network_probs(study, record, images, fold=fold) for fold in (0, 1, 2)]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    found = candidate_probs(study, record, images, folds=[0, 1, 2])
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)
    assert found.dtype == np.float32
    only = candidate_probs(study, record, images, folds=[2])
    np.testing.assert_array_equal(only, each[2])


def test_pixels_are_as_the_candidate_s_params_ask(study: ExperimentConfig) -> None:
    folder = StudyFolder(study.study_folder)
    images = calibration_images(folder).head(2)
    gray = candidate_pixels(study, folder.record(2), images)
    assert gray.shape == (2, 32, 32, 3)
    assert (gray[..., 0] == gray[..., 1]).all()
    colour = candidate_pixels(study, folder.record(1), images)
    assert (colour[..., 0] != colour[..., 1]).any()


def test_weights_of_another_classifier_are_refused(copy: ExperimentConfig) -> None:
    record = StudyFolder(copy.study_folder).record(1)
    other = record.model_copy(
        update={"params": record.params.model_copy(update={"hidden": 9})},
    )
    with pytest.raises(StudyError, match=r"00001/weights.safetensors: not of a cnn; search into"):
        load_classifier(copy, other)
