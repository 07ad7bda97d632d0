"""Where Ray runs: one line within seconds for what cannot be joined, and what was found."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import ray

from cluster import found
from cluster.connect import connected
from cluster.found import Cluster, probe, refresh_auth, refuse_text_of_versions
from search.errors import ClusterError
from tests.cluster.refusals import refusal
from tests.servers import free_port

MINE = f'{{"ray_version": "{ray.__version__}"}}'
TOKEN = "a-token-of-the-test-that-is-long-enough"  # noqa: S105
MESSAGES: Any = import_module("ray.core.generated.gcs_service_pb2")
SERVICES: Any = import_module("ray.core.generated.gcs_service_pb2_grpc")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No token of this machine is read, and none is remembered."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    monkeypatch.undo()
    refresh_auth()


@contextmanager
def fake_head(metadata: str, *, token: str | None = None) -> Iterator[str]:
    """What answers as a head does whose cluster has no node on this machine."""

    class Head:
        def InternalKVGet(self, _: Any, context: Any) -> Any:  # noqa: N802
            sent = dict(context.invocation_metadata()).get("authorization")
            if token is not None and sent != f"Bearer {token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return MESSAGES.InternalKVGetReply(value=metadata.encode())

        def GetAllNodeInfo(self, *_: Any) -> Any:  # noqa: N802
            return MESSAGES.GetAllNodeInfoReply()

        def __getattr__(self, _: str) -> None:
            """No other call is answered."""

    server = grpc.server(ThreadPoolExecutor(2))
    SERVICES.add_InternalKVGcsServiceServicer_to_server(Head(), server)
    SERVICES.add_NodeInfoGcsServiceServicer_to_server(Head(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextmanager
def real_head(environment: Mapping[str, str], *, num_cpus: int) -> Iterator[tuple[str, str]]:
    """A head of processes of its own; its address and that of its Ray Client."""
    folder = tempfile.mkdtemp(prefix="r")  # short: Unix sockets bear 107 characters
    port, client, *others = (free_port() for _ in range(9))
    names = "dashboard-port dashboard-agent-listen-port dashboard-agent-grpc-port"
    names += " metrics-export-port runtime-env-agent-port node-manager-port object-manager-port"
    settings = {"port": port, "ray-client-server-port": client, "temp-dir": folder}
    settings |= {"node-ip-address": "127.0.0.1", "dashboard-host": "127.0.0.1"}
    settings |= {"num-cpus": num_cpus, "object-store-memory": 10**8}
    settings |= dict(zip(names.split(), others, strict=True))
    head = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--disable-usage-stats", *(f"--{name}={value}" for name, value in settings.items())),
        ],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert head.stdout is not None
    try:
        assert any(b"Ray runtime started" in line for line in head.stdout)
        yield f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}"
    finally:
        head.send_signal(signal.SIGTERM)  # it ends its own processes
        head.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_is_one_line() -> None:
    cluster = Cluster("h:6379", 2, 8, 1, 2**30, 2**34, "2.60.0", "3.11.7", "token")
    assert cluster.describe() == (
        "Ray at h:6379: 2 nodes, 8 CPUs, 1 GPUs, 16.0 GiB memory, object store 1.0 GiB, "
        "Ray 2.60.0, Python 3.11.7, auth token"
    )


def test_an_unreachable_head_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tests.experiments import write_experiment

    address = f"127.0.0.1:{free_port()}"
    line = refusal(capsys, "audit", write_experiment(tmp_path), "--address", address)
    assert f"no Ray answers at {address} (connection refused)" in line
    assert "ray start --head" in line


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://head:8265", r"takes jobs.*consilium submit CONFIG --address http://head:8265"),
        ("ray://head:10001", r"Ray Client.*consilium submit"),
        ("head", r"'head' is no address of a Ray; write host:6379"),
        ("head:port", r"is no address"),
        ("head:99999", r"is no address"),
    ],
)
def test_an_address_of_another_kind_is_refused(address: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message), connected(address):
        pass


def test_another_service_is_no_head() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "ANSWER_WITHIN", 0.3)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"it is no Ray head.*6379"):
            probe(address)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ('{"ray_version": "2.1.0"}', rf"runs Ray 2\.1\.0, here it is {ray.__version__}; use the"),
        ('{"python_version": "3.9.1"}', r"runs Python 3\.9\.1, here it is 3"),
    ],
)
def test_a_head_of_another_version_is_refused(metadata: str, message: str) -> None:
    with fake_head(metadata) as address, pytest.raises(ClusterError, match=message):
        probe(address)


def test_what_ray_client_says_of_versions_is_one_line() -> None:
    text = "Version mismatch: The cluster was started with:\n Ray: 2.1.0\n Python: 3.11.1\nThis"
    with pytest.raises(ClusterError, match=r"runs Ray 2\.1\.0, here it is"):
        refuse_text_of_versions("ray://head:10001", text)


def test_a_cluster_without_a_node_here_is_refused_at_once() -> None:
    with (
        fake_head(MINE) as address,
        pytest.raises(ClusterError, match=r"has no node on this machine.*consilium submit"),
    ):
        probe(address)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"asks for a token and none was sent; set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": TOKEN}, r"asks for a token and none was sent; set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "token"}, r"RAY_AUTH_MODE=token is set, but no token is; put"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}, r"refuses this token.*TOKEN_PATH"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}, r"has no node on this machine"),
    ],
    ids=["none", "mode", "missing", "wrong", "right"],
)
def test_a_token_is_told_from_another(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with (
        fake_head(MINE, token=TOKEN) as address,
        pytest.raises(ClusterError, match=message) as refused,
    ):
        probe(address)
    assert TOKEN not in str(refused.value)


def test_no_ray_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_there(_: str) -> str:
        raise ConnectionError("Could not find any running Ray instance")

    services = "ray._private.services.canonicalize_bootstrap_address_or_die"
    monkeypatch.setattr(services, none_there)
    with pytest.raises(ClusterError, match=r"auto: no Ray runs on this machine"), connected("auto"):
        pass


@pytest.mark.slow
def test_a_ray_of_ones_own_has_a_token_of_its_own_and_leaves_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with connected() as cluster:
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert token.stat().st_mode & 0o777 == 0o600
        assert (cluster.address, cluster.nodes, cluster.auth) == ("local", 1, "token")
        assert cluster.cpus >= 1
    assert capsys.readouterr().err == ""
    assert not token.exists()
    assert not (tmp_path / ".ray").exists()
    assert "RAY_AUTH_MODE" not in os.environ
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, str]]:
    with real_head({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}, num_cpus=2) as addresses:
        yield addresses


@pytest.mark.slow
def test_the_right_token_joins_a_real_head(
    guarded: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    for address in guarded:
        with connected(address, client=True) as cluster:
            assert (cluster.nodes, cluster.cpus, cluster.auth) == (1, 2, "token")
        said = capsys.readouterr().err
        assert f"Ray at {address}: 1 node, 2 CPUs" in said
        assert TOKEN not in said


@pytest.mark.slow
def test_a_real_head_refuses_no_token_and_a_wrong_one(
    guarded: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in guarded:
        with pytest.raises(ClusterError, match=r"none was sent"), connected(address, client=True):
            pass
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    for address in guarded:
        with pytest.raises(ClusterError, match=r"refuses this token"):
            probe(address)


@pytest.mark.slow
def test_a_real_head_without_cpus_is_refused() -> None:
    with (
        real_head({"RAY_AUTH_MODE": "disabled"}, num_cpus=0) as (address, _),
        pytest.raises(ClusterError, match=r"has no CPUs on its 1 nodes; add a node"),
        connected(address),
    ):
        pass
    assert not ray.is_initialized()
