"""Explanations through their own deployment, and its bounded queue."""

import base64
import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.config import ExplainConfig, ServingConfig
from serving.start import start_service
from tests.servers import free_port
from tests.serving.faults.conftest import Bundles, serving_ray
from tests.serving.faults.load import Load
from tests.tiny import tiny_bytes

pytestmark = pytest.mark.slow
PNG = {"content-type": "image/png"}
WAITING = 1


@pytest.fixture(scope="module")
def url(bundles: Bundles) -> Iterator[str]:
    config = ServingConfig(
        bundle=bundles.old,
        port=free_port(),
        max_replicas=1,
        explain=ExplainConfig(max_waiting=WAITING),
    )
    with serving_ray(num_cpus=3):
        yield start_service(config)


def asked(url: str, path: str, seed: int = 4) -> httpx.Response:
    return httpx.post(
        url + path, content=tiny_bytes(seed), headers=PNG, timeout=60, trust_env=False
    )


def check_explanation(found: dict[str, Any], class_name: str) -> None:
    heat = np.array(found["map"])
    assert found["class_name"] == class_name
    assert heat.ndim == 2
    assert ((heat >= 0) & (heat <= 1)).all()
    assert set(found["members"]) == {"cnn_0", "cnn_1"}
    with Image.open(BytesIO(base64.b64decode(found["overlay_png"]))) as overlay:
        overlay.load()
        assert (overlay.format, overlay.mode) == ("PNG", "RGBA")


def test_an_explanation_is_a_map_and_a_picture_of_it(url: str) -> None:
    answer = asked(url, "/v1/explain")
    assert answer.status_code == 200, answer.text
    check_explanation(answer.json()["explanation"], "malignant")
    other = asked(url, "/v1/explain?class=benign").json()["explanation"]
    check_explanation(other, "benign")


def test_a_prediction_brings_its_explanation_if_asked(url: str) -> None:
    [one] = asked(url, "/v1/predict?explain=true").json()["predictions"]
    check_explanation(one["explanation"], "malignant")
    [plain] = asked(url, "/v1/predict").json()["predictions"]
    assert plain["explanation"] is None
    assert plain["probabilities"] == one["probabilities"]


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("/v1/explain?class=nothing", tiny_bytes(), (422, "unknown_class")),
        ("/v1/explain", tiny_bytes()[:200], (422, "damaged_image")),
        ("/v1/explain", b"", (422, "no_image")),
        ("/v1/predict?explain=perhaps", tiny_bytes(), (422, "invalid_parameter")),
    ],
)
def test_a_problem_of_an_explanation_is_told(
    url: str, path: str, content: bytes, expected: tuple[int, str]
) -> None:
    answer = httpx.post(url + path, content=content, headers=PNG, timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == expected


def test_a_full_queue_of_explanations_is_told_at_once_and_predictions_go_on(url: str) -> None:
    large = BytesIO()
    Image.effect_noise((3000, 3000), 90).convert("RGB").save(large, "JPEG")
    answers: list[httpx.Response] = []

    def explain() -> None:
        content = large.getvalue()
        jpeg = {"content-type": "image/jpeg"}
        answers.append(
            httpx.post(
                f"{url}/v1/explain", content=content, headers=jpeg, timeout=60, trust_env=False
            )
        )

    threads = [threading.Thread(target=explain) for _ in range(12)]
    with Load(url, [tiny_bytes(1)]).going(clients=1) as load:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load.wait_for(3)
    assert set(load.statuses()) == {(200, "")}
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(answer.json()["code"] == "overloaded" for answer in refused)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert asked(url, "/v1/explain").status_code == 200
