"""Both engines and every batch give the same probabilities."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ensemble.bundle import load_bundle
from ensemble.export import export_onnx
from ensemble.golden import check_golden, write_golden
from ensemble.pool import pool_probs
from ensemble.runtime import Runtime
from search.config import WeightsConfig
from search.errors import BundleError
from search.params import Params
from search.training.backbones import build_classifier
from tests.tiny import tiny_image, write_tiny_bundle

IMAGES = [tiny_image(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Runtime:
    return Runtime(load_bundle(bundle))


def test_onnx_equals_torch(bundle: Path, runtime: Runtime) -> None:
    torch.set_num_threads(1)
    other = Runtime(load_bundle(bundle), engine="torch").predict(IMAGES[:5])
    np.testing.assert_allclose(runtime.predict(IMAGES[:5]).probs, other.probs, atol=1e-6)


def test_images_in_a_batch_do_not_touch_each_other(runtime: Runtime) -> None:
    together = runtime.predict(IMAGES).probs
    alone = np.concatenate([runtime.predict([image]).probs for image in IMAGES])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_the_probabilities_are_the_calibrated_pool(runtime: Runtime) -> None:
    prediction = runtime.predict(IMAGES[:3])
    assert prediction.member_probs.shape == (2, 3, 2)
    pooled = pool_probs(prediction.member_probs, np.array([0.5, 0.5]))
    expected = runtime.bundle.manifest.calibrator.apply(pooled)
    np.testing.assert_allclose(prediction.probs, expected)


def test_members_of_equal_preprocessing_share_their_pixels(runtime: Runtime) -> None:
    first, second = runtime.prepare(IMAGES[0])
    assert first is second


def test_no_image_gives_no_row(runtime: Runtime) -> None:
    assert runtime.predict([]).probs.shape == (0, 2)


def test_a_graph_that_is_no_graph_is_refused(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    member = loaded.manifest.members[0].model_copy(update={"onnx_file": "card.md"})
    manifest = loaded.manifest.model_copy(update={"members": [member]})
    with pytest.raises(BundleError, match=r"card.md: cannot be loaded; build the bundle again"):
        Runtime(type(loaded)(loaded.folder, manifest))


def test_golden_images_come_out_as_written(tmp_path: Path, runtime: Runtime) -> None:
    copy = type(runtime.bundle)(tmp_path, runtime.bundle.manifest)
    write_golden(runtime, tmp_path, count=2)
    runtime.bundle, original = copy, runtime.bundle
    try:
        assert check_golden(runtime) == 0
        probs = tmp_path / "golden" / "probs.json"
        probs.write_text('{"0.png": [0.9, 0.1]}')
        with pytest.raises(
            BundleError, match=r"golden images come out .* off, the limit is 0.0001"
        ):
            check_golden(runtime)
    finally:
        runtime.bundle = original


def test_a_graph_that_differs_from_torch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.export.PARITY_LIMIT", -1.0)
    params = Params(backbone="cnn", image_size=16, hidden=4)
    classifier = build_classifier(params, 2, WeightsConfig(), seed=0).eval()
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(BundleError, match=r"m.onnx: ONNX differs from torch by"):
        export_onnx(classifier, tmp_path / "m.onnx", pixels=pixels)
