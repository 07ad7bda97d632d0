"""Both engines and every batch give the same probabilities."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ensemble.bundle import Bundle, load_bundle
from ensemble.export import export_onnx
from ensemble.golden import check_golden
from ensemble.pool import pool_probs
from ensemble.runtime import Engine, Runtime, at_prevalence
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
    member = loaded.manifest.members[0]
    network = member.networks[0].model_copy(update={"onnx_file": "card.md"})
    member = member.model_copy(update={"networks": [network]})
    manifest = loaded.manifest.model_copy(update={"members": [member]})
    with pytest.raises(BundleError, match=r"card.md: cannot be loaded; build the bundle again"):
        Runtime(type(loaded)(loaded.folder, manifest))


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_golden_images_come_out_as_written_on_another_path(
    tmp_path: Path, bundle: Path, engine: Engine
) -> None:
    moved = shutil.copytree(bundle, tmp_path / "moved")
    assert check_golden(Runtime(load_bundle(moved), engine=engine), engine) <= 1e-6


def test_golden_images_that_come_out_otherwise_are_refused(tmp_path: Path, bundle: Path) -> None:
    runtime = Runtime(load_bundle(bundle))
    moved = shutil.copytree(bundle, tmp_path / "moved")
    (moved / "golden" / "probs.json").write_text('{"onnx": {"0.png": [0.9, 0.1]}}')
    runtime.bundle = Bundle(moved, runtime.bundle.manifest)
    with pytest.raises(BundleError, match=r"golden images come out .* off, the limit is 0.0001"):
        check_golden(runtime)


@pytest.mark.parametrize("text", ["{}", '{"onnx": {}}', '{"onnx": {"0.png": [NaN, 0.1]}}', "no"])
def test_golden_probabilities_that_say_nothing_are_refused(
    tmp_path: Path, bundle: Path, text: str
) -> None:
    runtime = Runtime(load_bundle(bundle))
    moved = shutil.copytree(bundle, tmp_path / "moved")
    (moved / "golden" / "probs.json").write_text(text)
    runtime.bundle = Bundle(moved, runtime.bundle.manifest)
    with pytest.raises(BundleError, match=r"golden probabilities"):
        check_golden(runtime)


def test_a_member_that_gives_nan_decides_nothing(runtime: Runtime) -> None:
    scores = runtime.score([runtime.prepare(IMAGES[0])])
    scores.member_probs[1, 0, 0] = np.nan
    with pytest.raises(BundleError, match=r"a member gives NaN"):
        runtime.pooled(scores)


def test_a_member_of_two_networks_gives_their_mean(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    first, second = loaded.manifest.members
    both = first.model_copy(update={"networks": [*first.networks, *second.networks], "weight": 1})
    joined = Bundle(bundle, loaded.manifest.model_copy(update={"members": [both]}))
    alone = Runtime(loaded).predict(IMAGES[:3]).member_probs
    found = Runtime(joined).predict(IMAGES[:3]).member_probs
    np.testing.assert_allclose(found[0], alone.mean(axis=0), atol=1e-6)


def test_views_are_averaged_and_do_not_depend_on_how_the_image_lies(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    update = {"test_time_augmentation": "dihedral"}
    turned = Runtime(Bundle(bundle, loaded.manifest.model_copy(update=update)))
    square = [image.resize((16, 16)) for image in IMAGES[:4]]
    upright = turned.predict(square).probs
    lying = turned.predict([image.rotate(90) for image in square]).probs
    np.testing.assert_allclose(upright, lying, atol=1e-6)
    assert np.abs(upright - Runtime(loaded).predict(square).probs).max() > 1e-6


def test_another_prevalence_moves_the_odds_by_the_ratio_of_the_shares(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    probs = Runtime(loaded).predict(IMAGES).probs
    rare = at_prevalence(loaded, probs, {"malignant": 0.02})
    assert (rare[:, 1] < probs[:, 1]).all()
    odds = probs[:, 1] / probs[:, 0] * (0.02 / 0.4) / (0.98 / 0.6)
    np.testing.assert_allclose(rare[:, 1] / rare[:, 0], odds)


def test_eight_bit_members_that_are_not_there_are_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no 8-bit members; set ensemble.int8"):
        Runtime(load_bundle(bundle), engine="int8")


def test_a_graph_that_differs_from_torch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.export.PARITY_LIMIT", -1.0)
    params = Params(backbone="cnn", image_size=16, hidden=4)
    classifier = build_classifier(params, 2, WeightsConfig(), seed=0).eval()
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(BundleError, match=r"m.onnx: ONNX differs from torch by"):
        export_onnx(classifier, tmp_path / "m.onnx", pixels=pixels)
