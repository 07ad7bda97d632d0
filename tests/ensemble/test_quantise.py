"""Graphs in 8 bits."""

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from ensemble import quantise
from ensemble.export import export_onnx
from ensemble.quantise import quantise_onnx
from search.config import WeightsConfig
from search.errors import BundleError
from search.params import Params
from search.training.backbones import build_classifier

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "member.onnx"
    params = Params(backbone="cnn_batchnorm", image_size=16, hidden=4)
    classifier = build_classifier(params, 2, WeightsConfig(), seed=2).eval()
    export_onnx(classifier, path, pixels=PIXELS[:4])
    return path


def _probs(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["probs"], {"pixels": pixels})[0]
    return found


def test_the_graph_is_small_close_and_its_loss_is_measured(graph: Path, tmp_path: Path) -> None:
    target = tmp_path / "member.int8.onnx"
    difference = quantise_onnx(graph, target, pixels=PIXELS)
    found = np.abs(_probs(target, PIXELS) - _probs(graph, PIXELS)).max()
    assert difference == pytest.approx(found, abs=1e-6)
    assert 0 < difference < 0.05
    assert target.stat().st_size < 0.5 * graph.stat().st_size


def test_it_takes_and_gives_what_the_float_graph_does(graph: Path, tmp_path: Path) -> None:
    target = tmp_path / "member.int8.onnx"
    quantise_onnx(graph, target, pixels=PIXELS)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    probs, features = session.run(["probs", "features"], {"pixels": PIXELS[:1]})
    assert (probs.shape, features.shape) == ((1, 2), (1, 512))
    assert [given.type for given in session.get_inputs()] == ["tensor(uint8)"]


def test_weights_of_convolutions_and_dense_layers_are_8_bits_by_channel(
    graph: Path, tmp_path: Path
) -> None:
    target = tmp_path / "member.int8.onnx"
    quantise_onnx(graph, target, pixels=PIXELS)
    model = onnx.load(target)
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    source = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 5
    for layer in layers:
        weights, scales = (kept[name] for name in source[layer.input[1]].input[:2])
        assert weights.data_type == onnx.TensorProto.INT8
        assert len(scales.dims) == 1


def test_nothing_is_said_and_nothing_is_left(
    graph: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with caplog.at_level(logging.INFO):
        quantise_onnx(graph, tmp_path / "member.int8.onnx", pixels=PIXELS)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["member.int8.onnx", "tmp"]
    assert [path.name for path in graph.parent.iterdir()] == ["member.onnx"]
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_too_few_images_are_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 8 images, there are 7"):
        quantise_onnx(graph, tmp_path / "member.int8.onnx", pixels=PIXELS[:7])


def test_a_graph_without_numbers_is_not_written(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "_probs", lambda path, pixels: np.full(2, np.nan))
    with pytest.raises(BundleError, match=r"int8\.onnx: in 8 bits this graph gives no numbers"):
        quantise_onnx(graph, tmp_path / "member.int8.onnx", pixels=PIXELS)
    assert list(tmp_path.iterdir()) == []
