"""A head trained on cached features is the head that the images would have trained."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search.config import PolicyConfig, WeightsConfig
from search.data.cache import ImageCache
from search.errors import CacheError, TrainingError
from search.params import Params
from search.training.backbones import Classifier, build_classifier
from search.training.batches import Batches, Fold
from search.training.features import cached_features, is_headonly
from search.training.task import Task
from search.training.train import train_fold

SIZE, N = 16, 40
LABELS = (np.arange(N) % 3 == 0).astype(np.int64)
ROWS = np.arange(N)[::-1]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def some_params(**changes: Any) -> Params:
    settings = {"backbone": "cnn", "image_size": SIZE, "unfreeze": 0, "lr": 3e-3, "batch_size": 8}
    return Params.model_validate(settings | changes)


def some_images(folder: Path) -> ImageCache:
    level = np.where(LABELS[::-1] == 1, 160, 90)[:, None, None, None]
    noise = np.random.default_rng(0).integers(-60, 60, (N, SIZE, SIZE, 3))
    return ImageCache((level + noise).astype(np.uint8), {}, {}, folder / "cache" / "images")


def a_classifier(params: Params, seed: int = 0) -> Classifier:
    return build_classifier(params, 2, WeightsConfig(), seed=seed)


def a_fold(cache: ImageCache) -> Fold:
    return Fold(cache.pixels, ROWS[:27], LABELS[:27], ROWS[27:], LABELS[27:])


def a_task(epochs: int = 3) -> Task:
    policy = PolicyConfig(sensitivity=0.95)
    return Task(2, positive=1, policy=policy, objective="nll", epochs=epochs, seed=3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"hidden": 64, "dropout": 0.5, "balance": "sampler", "ema": 0.9}, True),
        ({"unfreeze": 0.01}, False),
        ({"augment": {"flip_horizontal": 0.5}}, False),
        ({"mixup": 0.2}, False),
        ({"cutmix": 0.2}, False),
    ],
)
def test_only_a_frozen_trunk_on_unchanging_images_leaves_the_head_alone(
    changes: dict[str, Any], expected: bool
) -> None:
    assert is_headonly(some_params(**changes)) is expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden": 12, "dropout": 0.4, "ema": 0.8, "balance": "class_weights"},
        {"backbone": "cnn_batchnorm", "balance": "sampler", "optimizer": "sgd", "clip_norm": 0.5},
        {"backbone": "mobilenetv2_035", "grayscale": True},
    ],
    ids=["plain", "hidden", "sampled", "timm"],
)
def test_features_give_what_images_give(changes: dict[str, Any], tmp_path: Path) -> None:
    cache, params = some_images(tmp_path), some_params(**changes)
    images = train_fold(a_fold(cache), params, a_task())
    features = partial(cached_features, cache, params)
    head = train_fold(a_fold(cache), params, a_task(), features=features)
    np.testing.assert_allclose(head.probs, images.probs, atol=1e-5)
    assert head.epoch == images.epoch
    assert list(head.state) == list(images.state)
    for name, value in images.state.items():
        torch.testing.assert_close(head.state[name], value, rtol=0, atol=1e-5, msg=name)


def test_the_trunk_runs_for_the_first_trial_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    whole = Classifier.features

    def counted(self: Classifier, normalised: Tensor) -> Tensor:
        passed.append(len(normalised))
        return whole(self, normalised)

    monkeypatch.setattr(Classifier, "features", counted)
    cache = some_images(tmp_path)
    for changes in ({}, {"hidden": 8, "lr": 0.1}):
        params = some_params(**changes)
        features = partial(cached_features, cache, params)
        train_fold(a_fold(cache), params, a_task(), features=features)
    assert passed == [1, N]  # the first pass tells the width


def test_features_are_those_of_the_trunk_in_evaluation_mode(tmp_path: Path) -> None:
    cache, params = some_images(tmp_path), some_params(backbone="cnn_batchnorm")
    classifier = a_classifier(params)
    found = cached_features(cache, params, classifier)
    with torch.inference_mode():
        pixels = torch.from_numpy(cache.pixels)
        expected = classifier.eval().features(classifier.normalise(pixels))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert isinstance(found, np.memmap)
    assert found.dtype == np.float32
    assert not found.flags.writeable


@pytest.mark.parametrize(
    ("changes", "seed", "maps"),
    [
        ({}, 0, 1),
        ({"hidden": 8, "dropout": 0.5}, 0, 1),
        ({}, 1, 2),
        ({"backbone": "cnn_batchnorm"}, 0, 2),
    ],
    ids=["the same", "another head", "another seed", "another backbone"],
)
def test_another_trunk_has_another_map(
    changes: dict[str, Any], seed: int, maps: int, tmp_path: Path
) -> None:
    cache = some_images(tmp_path)
    cached_features(cache, some_params(), a_classifier(some_params()))
    other = some_params(**changes)
    cached_features(cache, other, a_classifier(other, seed))
    assert len(list((tmp_path / "cache").glob("images-*/"))) == maps


def test_other_images_have_another_map(tmp_path: Path) -> None:
    cache, params = some_images(tmp_path), some_params()
    others = ImageCache(255 - cache.pixels, {}, {}, tmp_path / "cache" / "others")
    first, second = (
        cached_features(images, params, a_classifier(params)) for images in (cache, others)
    )
    assert not np.allclose(first, second)


def test_two_trials_at_once_build_one_map(tmp_path: Path) -> None:
    cache, params = some_images(tmp_path), some_params()
    classifiers = [a_classifier(params) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(partial(cached_features, cache, params), classifiers))
    np.testing.assert_array_equal(found[0], found[2])
    assert len(list((tmp_path / "cache").glob("images-*/"))) == 1


def test_what_a_killed_build_left_is_cleared(tmp_path: Path) -> None:
    cache, params = some_images(tmp_path), some_params()
    cached_features(cache, params, a_classifier(params))
    (target,) = (tmp_path / "cache").glob("images-*/")
    target.rename(stale := target.with_name(f"{target.name}.1234abcd.tmp"))
    cached_features(cache, params, a_classifier(params))
    assert target.is_dir()
    assert not stale.exists()


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, params = some_images(tmp_path), some_params()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(CacheError, match=r"needs 0 MiB and 1 MiB are free; free some"):
        cached_features(cache, params, a_classifier(params))
    assert not list((tmp_path / "cache").glob("*/"))


def test_batches_draw_features_as_they_draw_images(tmp_path: Path) -> None:
    cache, params = some_images(tmp_path), some_params()
    values = cache.pixels[:, 0, 0, :].astype(np.float32)
    drawn = []
    for features in (None, values):
        fold = Fold(cache.pixels, ROWS, LABELS, ROWS, LABELS, features)
        batches = Batches(fold, params, 2, seed=0)
        drawn.append([inputs for inputs, _ in batches])
    for images, vectors in zip(*drawn, strict=True):
        torch.testing.assert_close(images[:, 0, 0, :].float(), vectors)


def test_a_trial_that_its_costs_end_computes_no_features(tmp_path: Path) -> None:
    cache, params = some_images(tmp_path), some_params()

    def refuse(costs: dict[str, float]) -> None:
        raise TrainingError(f"params_m is {costs['params_m']:.2f}")

    task = replace(a_task(), measure_costs=True)
    features = partial(cached_features, cache, params)
    with pytest.raises(TrainingError, match=r"params_m is 0\.09"):
        train_fold(a_fold(cache), params, task, begun=refuse, features=features)
    assert not (tmp_path / "cache").exists()
