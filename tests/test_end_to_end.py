"""Synthetic lesions through a real Ray, a real bundle and a real Serve, by the command itself."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import cli
from cluster.connect import connected
from ensemble.bundle import load_bundle
from ensemble.runtime import Runtime
from search.data.transforms import decode
from search.study.records import StudyFolder
from search.study.sealed import count_openings
from serving.client import Client
from serving.config import ServingConfig
from serving.start import start_service, stop_service
from tests.experiments import write_experiment


@dataclass(frozen=True)
class Flow:
    """What the flow left behind."""

    config: Path
    out: Path
    url: str

    @property
    def bundle(self) -> Path:
        return self.out / "bundle"

    @property
    def images(self) -> list[Path]:
        return sorted((self.config.parent / "data" / "images").glob("*.jpg"))[:4]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    """Search and ensemble by their steps in one Ray, then the endpoint."""
    from cluster.steps import build, search_trials
    from search.config import load_config

    config = write_experiment(tmp_path_factory.mktemp("flow"))
    settings = load_config(config)
    with connected():
        search_trials(settings)
        build(settings, config)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        service = ServingConfig(bundle=settings.bundle_folder, port=port, max_replicas=1)
        url = start_service(service)
        yield Flow(config, settings.output, url)
        stop_service()


def run(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command with --json: its one object on stdout."""
    capsys.readouterr()
    cli.run([str(word) for word in (*words, "--json")])
    return json.loads(capsys.readouterr().out)


def test_the_endpoint_gives_the_bundles_own_probabilities(flow: Flow) -> None:
    runtime = Runtime(load_bundle(flow.bundle))
    expected = runtime.predict([decode(path) for path in flow.images]).probs
    with Client(flow.url) as client:
        answer = client.predict(*flow.images)
    served = [list(found.probabilities.values()) for found in answer.predictions]
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_predict_says_the_same_of_a_bundle_and_of_an_endpoint(
    flow: Flow, capsys: pytest.CaptureFixture[str]
) -> None:
    here = run("predict", flow.bundle, *flow.images, capsys=capsys)["images"]
    there = run("predict", flow.url, *flow.images, capsys=capsys)["images"]
    for one, other in zip(here, there, strict=True):
        assert one["decision"] == other["decision"] is not None
        assert one["malignant"] == pytest.approx(other["malignant"], abs=1e-5)


def test_both_engines_agree_on_trained_members(flow: Flow) -> None:
    bundle = load_bundle(flow.bundle)
    images = [decode(path) for path in flow.images]
    onnx, torch = (Runtime(bundle, engine=engine).predict(images) for engine in ("onnx", "torch"))
    np.testing.assert_allclose(onnx.probs, torch.probs, atol=1e-5)
    networks = [network for member in bundle.manifest.members for network in member.networks]
    assert all(network.parity < 1e-4 for network in networks)


def test_the_bundle_is_whole(flow: Flow) -> None:
    files = set(load_bundle(flow.bundle).manifest.files)
    assert {"card.md", "report.html", "metrics.json", "golden/probs.json"} <= files
    assert {Path(name).suffix for name in files if name.startswith("members/")} == {
        ".safetensors",
        ".onnx",
    }


def test_the_sealed_test_was_opened_once(flow: Flow) -> None:
    assert count_openings(StudyFolder(flow.out / "study")) == 1


def test_the_leaderboard_names_the_ensemble_the_best_single_and_the_recipes(flow: Flow) -> None:
    document = json.loads((flow.bundle / "metrics.json").read_text())
    who = [row["who"] for row in document["leaderboard"]]
    assert who[:2] == ["ensemble", "best single, calibrated"]
    assert "recipe custom_cnn" in who
    brier = document["test"]["metrics"]["brier"]
    assert brier == document["leaderboard"][0]["metrics"]["brier"]
    assert brier["low"] <= brier["value"] <= brier["high"]
    assert [row["against"] for row in document["test"]["differences"]] == who[1:]


def count_test_images(flow: Flow) -> int:
    return StudyFolder(flow.out / "study").head().n_images["test"]


def test_a_set_is_evaluated_without_the_images_that_the_bundle_was_made_from(
    flow: Flow, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = run("evaluate", flow.bundle, flow.config, "--output", tmp_path, capsys=capsys)
    assert found["n_images"] + found["seen"] == 64
    assert found["n_images"] == count_test_images(flow)
    assert 0 <= found["metrics"]["auroc"]["value"] <= 1
    assert found["operating_points"][0]["name"] == "sensitivity_0.95"
    assert json.loads((tmp_path / "evaluation.json").read_text())["seen"] == found["seen"]
    assert "the bundle was made from them" in (tmp_path / "report.html").read_text()


def test_the_ensemble_can_be_built_again_from_the_same_study(
    flow: Flow, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_bundle(flow.bundle).manifest
    found = run("ensemble", flow.config, capsys=capsys)
    after = load_bundle(flow.bundle).manifest
    assert found["digest"] == after.digest
    assert after.calibrator == before.calibrator
    assert after.operating_points == before.operating_points
    notes = (flow.bundle / "report.html").read_text()
    assert "opened 2 times" in notes
