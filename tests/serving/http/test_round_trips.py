"""The same two images by every way into the service, over a real socket; and one answer."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from cluster import cli
from ensemble.bundle import load_bundle
from ensemble.runtime import Runtime, at_prevalence
from search.data.transforms import decode
from search.errors import ServingError
from serving.client import AsyncClient, Client
from serving.config import ServingConfig
from serving.schemas import PredictAnswer
from tests.serving.live import live
from tests.tiny import CLASSES, tiny_bytes

FILES = [tiny_bytes(1), tiny_bytes(2, kind="JPEG")]
SHARES = {"malignant": 0.01}
Probs = NDArray[np.float64]


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    with live(ServingConfig(bundle=bundle_folder, access_log=False)) as url:
        yield url


@pytest.fixture(scope="module")
def probs(bundle_folder: Path) -> Probs:
    """(2, 2), by the bundle itself."""
    return Runtime(load_bundle(bundle_folder)).predict([decode(file) for file in FILES]).probs


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "first.png", tmp_path / "second.jpg"]
    for path, file in zip(found, FILES, strict=True):
        path.write_bytes(file)
    return found


def probs_of(answer: PredictAnswer) -> list[list[float]]:
    return [[each.probabilities[name] for name in CLASSES] for each in answer.predictions]


def test_a_client_of_the_open_inference_protocol(url: str, probs: Probs) -> None:
    with httpx.Client(base_url=url) as http:
        assert http.get("/v2/health/live").json()["live"] is True
        assert http.get("/v2/health/ready").json()["ready"] is True
        assert http.get("/v2").json()["name"] == "consilium"
        model = http.get("/v2/models/tiny").json()
        assert (model["name"], model["versions"]) == ("tiny", ["1"])
        assert http.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
        [tensor] = model["inputs"]
        data = [b64encode(file).decode() for file in FILES]
        given = {"name": tensor["name"], "datatype": tensor["datatype"], "shape": [2], "data": data}
        for path in ("/v2/models/tiny/infer", "/v2/models/tiny/versions/1/infer"):
            answer = http.post(path, json={"id": "7", "inputs": [given]}).json()
            assert (answer["model_name"], answer["id"]) == ("tiny", "7")
            outputs = {output["name"]: output for output in answer["outputs"]}
            assert list(outputs) == [output["name"] for output in model["outputs"]]
            found = outputs["probabilities"]
            assert (found["shape"], found["datatype"]) == ([2, 2], "FP64")
            np.testing.assert_allclose(np.reshape(found["data"], (2, 2)), probs, atol=1e-5)
            assert outputs["classes"]["data"] == CLASSES


def test_an_image_as_the_body_itself(url: str, probs: Probs) -> None:
    for file, kind, row in zip(FILES, ("image/png", "image/jpeg"), probs, strict=True):
        content = httpx.post(
            f"{url}/v1/predict", content=file, headers={"content-type": kind}
        ).content
        [found] = probs_of(PredictAnswer.model_validate_json(content))
        np.testing.assert_allclose(found, row, atol=1e-5)


def test_images_as_the_parts_of_a_form(url: str, probs: Probs) -> None:
    parts = [("image", (f"{i}", file)) for i, file in enumerate(FILES)]
    content = httpx.post(f"{url}/v1/predict", files=parts).content
    found = probs_of(PredictAnswer.model_validate_json(content))
    np.testing.assert_allclose(found, probs, atol=1e-5)


def test_the_client_and_its_twin(url: str, probs: Probs, paths: list[Path]) -> None:
    asked: dict[str, Any] = {"operating_point": "balanced", "prevalence": SHARES, "members": True}

    async def awaited() -> PredictAnswer:
        async with AsyncClient(url) as client:
            assert await client.ready()
            return await client.predict(*paths, **asked)

    with Client(url) as client:
        assert client.ready()
        assert client.model().classes == CLASSES
        answers = [client.predict(*paths, **asked), asyncio.run(awaited())]
        explained = client.explain(paths[0], "benign").explanation
        with pytest.raises(ServingError, match=r"unsupported_type: image 1 is no JPEG"):
            client.predict(b"no image")
    assert (explained.class_name, list(explained.members)) == ("benign", ["cnn_0", "cnn_1"])
    for answer in answers:
        np.testing.assert_allclose(probs_of(answer), probs, atol=1e-5)
        for each in answer.predictions:
            assert each.operating_point is not None
            assert each.operating_point.name == "balanced"
            assert list(each.members or {}) == ["cnn_0", "cnn_1"]
            assert each.at_prevalence is not None
            assert each.at_prevalence["malignant"] < each.probabilities["malignant"]


@pytest.mark.parametrize("point", ["sensitivity_0.95", "balanced"])
def test_the_command(
    capsys: pytest.CaptureFixture[str],
    bundle_folder: Path,
    url: str,
    probs: Probs,
    paths: list[Path],
    point: str,
) -> None:
    def rows(where: str, *more: str) -> list[dict[str, Any]]:
        cli.main(["predict", where, *map(str, paths), "--json", *more])
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["images"]
        return found

    def shares(found: list[dict[str, Any]]) -> list[list[float]]:
        return [[row[name] for name in CLASSES] for row in found]

    chosen = ["--operating-point", point]
    plain, rare = rows(url, *chosen), rows(url, *chosen, "--prevalence", "malignant=0.01")
    np.testing.assert_allclose(shares(plain), probs, atol=1e-5)
    shifted = at_prevalence(load_bundle(bundle_folder), probs, SHARES)
    np.testing.assert_allclose(shares(rare), shifted, atol=1e-5)
    decided = [[row["decision"] for row in found] for found in (plain, rare)]
    # The same words for a folder give the same rows: only where the members stand differs.
    assert decided == [[row["decision"] for row in rows(str(bundle_folder), *chosen)]] * 2
