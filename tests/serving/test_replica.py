"""The real thing: Ray, Ray Serve, a replica, HTTP."""

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray

from ensemble.bundle import load_bundle
from ensemble.runtime import Runtime
from search.data.transforms import decode
from search.errors import BundleError, ServingError
from serving.app import build_app
from serving.client import Client
from serving.config import ServingConfig
from serving.start import check_port, start_service, stop_service
from tests.tiny import tiny_bytes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def config(bundle_folder: Path) -> ServingConfig:
    return ServingConfig(bundle=bundle_folder, port=free_port(), max_image_bytes=100_000)


@pytest.fixture(scope="module")
def url(config: ServingConfig) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="ray")  # short: a Unix socket's path has 107 bytes at most
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        _temp_dir=folder,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield start_service(config)
    finally:
        stop_service()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_http_gives_the_runtimes_probabilities(url: str, bundle_folder: Path) -> None:
    file = tiny_bytes(5, kind="JPEG")
    answer = httpx.post(
        f"{url}/v1/predict", content=file, headers={"content-type": "image/jpeg"}
    ).json()
    probs = Runtime(load_bundle(bundle_folder)).predict([decode(file)]).probs[0]
    found = list(answer["predictions"][0]["probabilities"].values())
    np.testing.assert_allclose(found, probs, atol=1e-5)


def test_the_request_id_of_serve_is_the_answers(url: str) -> None:
    response = httpx.post(f"{url}/v1/predict", files=[("image", tiny_bytes())])
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_the_client_gets_an_answer_for_every_image(url: str, bundle_folder: Path) -> None:
    with Client(url) as client:
        assert client.ready()
        assert client.model().bundle.digest == load_bundle(bundle_folder).manifest.digest
        answer = client.predict(tiny_bytes(1), tiny_bytes(2), operating_point="balanced")
    assert len(answer.predictions) == 2


def test_problems_pass_through_serve(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(ServingError, match="too_large: the image has more than 100000 bytes"):
            client.predict(b"\xff\xd8\xff" + bytes(1_000_000))
        with pytest.raises(ServingError, match="unsupported_type"):
            client.predict(b"text")


def test_rays_own_agent_tells_our_metrics_without_a_dashboard(url: str) -> None:
    httpx.post(f"{url}/v1/predict", content=tiny_bytes()).raise_for_status()
    [node] = ray.nodes()  # type: ignore[no-untyped-call]
    address = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    deadline, text = time.monotonic() + 60, ""
    while "ray_consilium_requests_total" not in text:
        assert time.monotonic() < deadline, "Ray's agent never told of a request"
        time.sleep(0.5)
        text = httpx.get(address, trust_env=False).text
    [line] = [
        line
        for line in text.splitlines()
        if line.startswith("ray_consilium_requests_total{")
        and 'route="/v1/predict"' in line
        and 'status="200"' in line
    ]
    assert float(line.rpartition(" ")[2]) >= 1


def test_a_port_in_use_is_refused(url: str, config: ServingConfig) -> None:
    with pytest.raises(ServingError, match=f"{config.port}: address already in use; choose"):
        start_service(config)
    assert httpx.get(f"{url}/readyz").is_success


def test_a_second_service_on_one_ray_is_refused(url: str, config: ServingConfig) -> None:
    with pytest.raises(ServingError, match="runs on this cluster already"):
        start_service(config.model_copy(update={"port": free_port()}))
    assert httpx.get(f"{url}/readyz").is_success


def test_more_cpus_than_ray_has_are_refused(url: str, config: ServingConfig) -> None:
    greedy = config.model_copy(update={"port": free_port(), "cpus": 3})
    with pytest.raises(ServingError, match="3 CPUs are needed and Ray has 2; lower"):
        start_service(greedy)


def test_an_address_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(ServingError, match=r"192\.0\.2\.77:8000: .*; choose another port or host"):
        check_port("192.0.2.77", 8000)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no readable bundle\.json"):
        start_service(ServingConfig(bundle=tmp_path))


def test_a_yaml_reaches_the_builder_checked(bundle_folder: Path) -> None:
    assert build_app.__annotations__["args"] is ServingConfig
    assert build_app(ServingConfig(bundle=bundle_folder)) is not None
