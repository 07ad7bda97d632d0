from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.config import ServingConfig
from serving.http.api import build_api
from serving.scoring.service import Service
from tests.tiny import write_tiny_bundle


def started(config: ServingConfig) -> Service:
    """A service that is ready."""
    service = Service(config)
    assert config.rollout is not None
    service.start(config.rollout)
    return service


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("served") / "bundle")


@pytest.fixture(scope="session")
def service(bundle_folder: Path) -> Iterator[Service]:
    """A service with limits that a test can reach."""
    limits = {"max_image_bytes": 20_000, "max_body_bytes": 50_000, "max_images": 3}
    service = started(ServingConfig(bundle=bundle_folder, max_pixels=10_000, **limits))
    yield service
    service.close()


@pytest.fixture
def http(service: Service) -> Iterator[TestClient]:
    with TestClient(build_api(service), raise_server_exceptions=False) as http:
        yield http
