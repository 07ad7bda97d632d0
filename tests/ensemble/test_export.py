"""ONNX graphs of members."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from ensemble import export
from ensemble.export import export_onnx
from search.config import WeightsConfig
from search.errors import BundleError
from search.params import Params
from search.training.backbones import Classifier, build_classifier


def _classifier(size: int, backbone: str = "cnn_batchnorm") -> Classifier:
    params = Params(backbone=backbone, image_size=size, hidden=4)
    return build_classifier(params, 3, WeightsConfig(), seed=1).eval()


def _pixels(size: int, n: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def _outputs(path: Path, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(["probs", "features"], {"pixels": pixels})
    return found


def _check(classifier: Classifier, path: Path, pixels: NDArray[np.uint8]) -> None:
    given = torch.from_numpy(pixels)
    with torch.inference_mode():
        probs = torch.softmax(classifier(given), dim=1).numpy()
        features = classifier.features(classifier.normalise(given)).numpy()
    found = _outputs(path, pixels)
    np.testing.assert_allclose(found[0], probs, atol=1e-6)
    np.testing.assert_allclose(found[1], features, atol=1e-4)
    assert [part.dtype for part in found] == [np.float32, np.float32]


def test_a_graph_gives_torch_probs_and_features_at_any_batch_size(tmp_path: Path) -> None:
    classifier, path = _classifier(16), tmp_path / "member.onnx"
    assert 0 <= export_onnx(classifier, path, pixels=_pixels(16)) < 1e-6
    for n in (1, 2, 5):
        _check(classifier, path, _pixels(16, n))
    assert [file.name for file in tmp_path.iterdir()] == ["member.onnx"]


def test_the_trunk_is_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "member.onnx"
    export_onnx(_classifier(16), path, pixels=_pixels(16))
    nodes = onnx.load(path).graph.node
    assert sum(node.op_type == "Conv" for node in nodes) == 3


def test_what_cannot_be_traced_is_exported_otherwise_and_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    classifier, path = _classifier(40, "cnn"), tmp_path / "member.onnx"  # 5 cells pooled to 4
    pixels = _pixels(40)
    assert export._traced(export._Outputs(classifier), torch.from_numpy(pixels), path) == np.inf
    assert export_onnx(classifier, path, pixels=pixels) < 1e-6
    _check(classifier, path, _pixels(40, 1))
    assert capfd.readouterr().out == ""


def test_a_trace_that_is_wrong_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export._export

    def export_another(network: Any, pixels: Any, path: Path, **options: Any) -> None:
        real(export._Outputs(_classifier(16, "cnn")), pixels, path, **options)

    def capture(network: Any, pixels: Any, path: Path) -> float:
        path.write_text("captured")
        return 0.0

    monkeypatch.setattr(export, "_export", export_another)
    monkeypatch.setattr(export, "_captured", capture)
    path = tmp_path / "member.onnx"
    assert export_onnx(_classifier(16), path, pixels=_pixels(16)) == 0
    assert path.read_text() == "captured"


def test_a_graph_that_differs_from_torch_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PARITY_LIMIT", -1.0)
    monkeypatch.setattr(export, "_captured", lambda network, pixels, path: 0.5)
    path = tmp_path / "member.onnx"
    with pytest.raises(BundleError, match=r"member\.onnx: ONNX differs from torch by 5.0e-01"):
        export_onnx(_classifier(16, "cnn"), path, pixels=_pixels(16))
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_another_shape_or_no_numbers_are_no_parity() -> None:
    ones = np.ones((2, 3), np.float32)
    assert export._worst(ones[:1], ones) == np.inf
    assert export._worst(ones * np.nan, ones) == np.inf
    assert export._worst(ones * 0.75, ones) == 0.25
