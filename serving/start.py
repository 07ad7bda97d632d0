"""Starting and stopping the service on a Ray that runs already."""

import logging
import socket
import time
from collections.abc import Callable

import httpx
import ray
from ray import serve
from ray.exceptions import RayError

from ensemble.bundle import load_bundle
from search.errors import ServingError
from serving.app import build_app
from serving.config import ServingConfig
from serving.http.keys import KeyRing

APPLICATION = "consilium"


def start_service(
    config: ServingConfig,
    *,
    blocking: bool = False,
    announce: Callable[[str], None] | None = None,
    timeout_s: float = 120,
) -> str:
    """Serve a bundle; ready when it returns.

    Args:
        blocking: stay until interrupted (Ctrl-C), then stop the service.
        announce: called with the URL once the service is ready.
        timeout_s: to become ready in, after Serve calls the application running.

    Returns:
        The service's URL.

    Raises:
        BundleError: the bundle cannot be served.
        ServingError: the port is in use, CPUs are too few, Serve runs already, or the service
            does not get ready.
    """
    digest = check_service(config)
    _check_cpus(config)
    if serve.status().proxies:
        raise ServingError("Ray Serve runs on this cluster already; stop it first")
    try:
        _deploy(config.model_copy(update={"digest": digest}))
        _wait_until_ready(config.url, timeout_s)
        if announce is not None:
            announce(config.url)
        if blocking:
            _sleep_until_interrupted()
    except BaseException:
        stop_service()
        raise
    if blocking:
        stop_service()
    return config.url


def stop_service() -> None:
    """Take the service and all of Serve down; Ray stays. Does nothing where none runs."""
    serve.shutdown()  # type: ignore[no-untyped-call]


def check_service(config: ServingConfig) -> str:
    """Refuse what a replica would refuse after a minute of trying.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: the bundle cannot be served.
        ServingError: no bundle, a bad file of keys, or a port that is in use.
    """
    if config.bundle is None:
        raise ServingError("no bundle is named; give the folder that consilium ensemble made")
    digest = load_bundle(config.bundle).manifest.digest
    if config.keys is not None:
        KeyRing(config.keys)
    check_port(config.host, config.port)
    return digest


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises:
        ServingError: naming the address and the reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # A port that a closed connection lingers on is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ServingError(f"{host}:{port}: {reason}; choose another port or host") from error


def _check_cpus(config: ServingConfig) -> None:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    needed, total = config.cpus * config.min_replicas, resources.get("CPU", 0)
    if needed > total:  # Serve would wait for them without end
        raise ServingError(
            f"{needed} CPUs are needed and Ray has {total:g}; lower serving.cpus or min_replicas"
        )


def _deploy(config: ServingConfig) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # on the terminal; replicas log on
    try:
        serve.start(
            http_options={
                "host": config.host,
                "port": config.port,
                "request_timeout_s": config.request_timeout_s,
            }
        )
        serve.run(build_app(config), name=APPLICATION, route_prefix="/")
    except (RayError, RuntimeError, TimeoutError) as error:
        raise ServingError(f"the service cannot start: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why a replica failed to start: the last line of its traceback, else the error's own."""
    application = serve.status().applications.get(APPLICATION)
    deployments = application.deployments.values() if application else []
    said = [str(error), *(deployment.message for deployment in deployments)]
    return [line for text in said for line in text.splitlines() if line.strip()][-1]


def _wait_until_ready(url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise ServingError(f"{url}: not ready within {timeout_s:g} s; see Ray's logs")


def _sleep_until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
