"""A real Ray with a real service, and what breaks it."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from serving.config import ServingConfig
from serving.environment import serve_environment
from serving.http.keys import add_key
from serving.scoring.service import Service
from serving.start import APPLICATION
from tests.serving.bundles import rebuilt
from tests.serving.conftest import started
from tests.tiny import tiny_bytes, write_tiny_bundle

# A replica that leaves waits so long for a load balancer to notice; 30 as Serve comes.
QUICK_STOP = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"}
ALIVE = ("RUNNING", "UPDATING")  # the latter: told of another user_config, for a moment
FILES = [tiny_bytes(seed) for seed in range(12)]


@contextmanager
def serving_ray(
    *, num_cpus: int, haproxy: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A Ray on loopback whose processes have the service's environment; Serve ends with it."""
    folder = tempfile.mkdtemp(prefix="ray")  # short: Unix sockets bear 107 characters
    settings = serve_environment(haproxy=haproxy) | QUICK_STOP | dict(environment or {})
    with patch.dict(os.environ, settings):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
            )
            yield
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Operator:
    """Who deploys by a config file, as `serve deploy` does."""

    port: int
    args: dict[str, Any]

    def deploy(self, user_config: dict[str, Any], **ensemble: Any) -> None:
        """Hand the config to Serve's controller; returns before anything has changed."""
        application = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "serving.app:build_app",
            "args": self.args,
            "deployments": [{"name": "ensemble", "user_config": user_config, **ensemble}],
        }
        config = {
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "applications": [application],
        }
        client: Any = _get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(config))


def replicas(deployment: str = "ensemble") -> dict[str, int]:
    """Process ids by replica id, of those that have started."""
    client: Any = _get_global_client()
    details = client.get_serve_details()["applications"].get(APPLICATION, {})
    found = details.get("deployments", {}).get(deployment, {}).get("replicas", [])
    return {one["replica_id"]: one["pid"] for one in found if one["state"] in ALIVE}


def kill_one() -> tuple[str, int]:
    """SIGKILL for one replica: its id and process id."""
    name, pid = sorted(replicas().items())[0]
    os.kill(pid, signal.SIGKILL)
    return name, pid


def wait_until(is_so: Callable[[], bool], *, seconds: float = 60) -> float:
    """Seconds until it is so."""
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin < seconds, f"not within {seconds:g} s"
        time.sleep(0.1)
    return time.monotonic() - begin


@pytest.fixture(scope="package")
def quiet(bundle_folder: Path) -> Iterator[Service]:
    """A service without an access log, with limits that a test can reach."""
    limits = {"max_image_bytes": 20_000, "max_body_bytes": 50_000, "max_images": 3}
    service = started(
        ServingConfig(bundle=bundle_folder, max_pixels=10_000, access_log=False, **limits)
    )
    yield service
    service.close()


@dataclass(frozen=True)
class Bundles:
    """Two bundles that answer differently, below one folder."""

    root: Path
    old: Path
    new: Path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    root = tmp_path_factory.mktemp("bundles")
    old = write_tiny_bundle(root / "old")
    return Bundles(root, old, rebuilt(root / "new", old, version="2"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The file of keys as `file`, and a secret by scope."""
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    scopes: list[Any] = ["predict", "admin"]
    return {"file": str(file)} | {scope: add_key(file, scope, [scope]) for scope in scopes}
