"""A trial of two workers that each decode and hold their part of the images alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from search.config import ExperimentConfig, ResourcesConfig
from search.data.splits import fold_rows
from search.errors import TrainingError
from search.params import Params
from search.study.intake import take_in
from search.study.records import StudyFolder
from search.study.shard import open_shard, shard_places
from search.study.trial import Trial, fold_images, open_fold_images, train_trial
from search.training.backbones import preprocessing_of, restore_classifier
from search.training.batches import ELSEWHERE
from search.training.predict import predict_pixels
from search.training.ranks import Ranks
from tests.search.study.test_intake import an_experiment

WORLD = 2
PARAMS = Params(backbone="cnn", image_size=16, hidden=4, batch_size=4, dropout=0)
FROZEN = Params(backbone="cnn", image_size=16, hidden=4, batch_size=4, dropout=0, unfreeze=0)


def a_sharded(folder: Path, **resources: Any) -> ExperimentConfig:
    config = an_experiment(
        folder,
        fidelity={"max_epochs": 2},
        resources={"workers": 2, "shard": True, **resources},
    )
    study = StudyFolder(config.study_folder)
    study.create()
    study.write_head(take_in(config, study))
    return config


def test_a_worker_s_map_holds_its_part_alone(tmp_path: Path) -> None:
    config = a_sharded(tmp_path)
    images = fold_images(StudyFolder(config.study_folder))
    train, val = fold_rows(images, 0)
    held: list[set[int]] = []
    for rank in range(WORLD):
        ranks = Ranks(rank, WORLD)
        cache, rows = open_shard(config, images, preprocessing_of(PARAMS), fold=0, ranks=ranks)
        held.append(set(np.flatnonzero(rows != ELSEWHERE).tolist()))
        assert len(cache.pixels) == len(held[-1]) < len(images)
        assert sorted(rows[rows != ELSEWHERE]) == list(range(len(cache.pixels)))
        assert set(ranks.spread(val)) <= held[-1]
    assert held[0] | held[1] == set(range(len(images)))
    assert not held[0] & held[1] & set(train.tolist())
    assert len(held[0] & held[1]) <= 1  # to predict as many as the other one


def test_too_few_images_for_the_workers_is_said() -> None:
    images = pd.DataFrame({"label": [0, 1, 0], "part": ["train"] * 3, "fold": [0, 1, 1]})
    with pytest.raises(TrainingError, match=r"2 images cannot be divided among 3 workers; set res"):
        shard_places(images, 0, Ranks(0, 3), seed=0)


def test_one_worker_has_nothing_to_divide() -> None:
    with pytest.raises(ValueError, match=r"shard divides the images among workers; set workers"):
        ResourcesConfig(shard=True)


def train_in_group(rank: int, config: ExperimentConfig, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=WORLD
    )
    own = config.model_copy(update={"cache": folder / f"cache{rank}"})  # a disk of its own
    for number, params in enumerate([PARAMS, FROZEN]):
        train_trial(own, Trial(number, params), ranks=Ranks(rank, WORLD))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_with_a_disk_each_train_one_trial(tmp_path: Path) -> None:
    config = a_sharded(tmp_path)
    (tmp_path / "group").mkdir()
    spawn(  # type: ignore[no-untyped-call]
        train_in_group, (config, tmp_path / "group"), nprocs=WORLD
    )
    study = StudyFolder(config.study_folder)
    images = fold_images(study)
    _, val = fold_rows(images, 0)
    whole = config.model_copy(update={"resources": ResourcesConfig()})
    for number, params in enumerate([PARAMS, FROZEN]):
        assert study.probs(number)["image"].tolist() == images["image"].iloc[val].tolist()
        assert study.record(number).error is None
        assert_probs_of_the_weights(whole, number, params)
    shapes = {
        np.load(file, mmap_mode="r").shape[0]
        for file in (tmp_path / "group").glob("cache*/*/*.npy")
    }
    assert max(shapes) <= len(images) // 2 + 2
    assert len(list((tmp_path / "group").glob("cache*/*/features.npy"))) == WORLD


def assert_probs_of_the_weights(config: ExperimentConfig, number: int, params: Params) -> None:
    """What was gathered of both workers is what the kept weights say of all images, in order."""
    study = StudyFolder(config.study_folder)
    cache, rows = open_fold_images(config, params)
    images = fold_images(study)
    _, val = fold_rows(images, 0)
    classifier = restore_classifier(params, 2, study.weights(number))
    torch.set_num_threads(1)
    expected = predict_pixels(classifier, cache.pixels, rows[val])
    found = study.probs(number).set_index("image")
    np.testing.assert_allclose(found.to_numpy(np.float32), expected, atol=1e-5)
