"""What is at an address: asked within seconds, before Ray's own client tries for minutes.

Ray's client tells an absent head, a wrong token and a foreign port apart only after long retries,
if at all. One gRPC call to the head, or to its Ray Client port, says it at once.
"""

import json
import os
import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import grpc  # type: ignore[import-untyped]

from search.errors import ClusterError

CLIENT = "ray://"
JOBS = ("http://", "https://")
CONNECT_WITHIN = 3.0  # seconds for the TCP port
ANSWER_WITHIN = 5.0  # seconds for each gRPC call
GIB = 2**30
Auth = Literal["token", "none"]


@dataclass(frozen=True)
class Cluster:
    """What a Ray has, all nodes together.

    Attributes:
        address: as it was given; "local" for a Ray of this process.
        nodes: that are alive.
        object_store_bytes: shared memory of Ray's objects.
        memory_bytes: that Ray hands out to tasks.
        auth: whether it asks for a token.
    """

    address: str
    nodes: int
    cpus: float
    gpus: float
    object_store_bytes: int
    memory_bytes: int
    ray_version: str
    python_version: str
    auth: Auth

    def describe(self) -> str:
        """One line for people."""
        nodes = f"{self.nodes} node{'s' if self.nodes > 1 else ''}"
        return (
            f"Ray at {self.address}: {nodes}, {self.cpus:g} CPUs, {self.gpus:g} GPUs, "
            f"{self.memory_bytes / GIB:.1f} GiB memory, object store "
            f"{self.object_store_bytes / GIB:.1f} GiB, Ray {self.ray_version}, "
            f"Python {self.python_version}, auth {self.auth}"
        )


def look_around(address: str, auth: Auth) -> Cluster:
    """What the connected Ray has."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    have = [node["Resources"] for node in nodes if node["Alive"]]

    def total(name: str) -> float:
        return float(sum(resources.get(name, 0) for resources in have))

    return Cluster(
        address=address,
        nodes=len(have),
        cpus=total("CPU"),
        gpus=total("GPU"),
        object_store_bytes=int(total("object_store_memory")),
        memory_bytes=int(total("memory")),
        ray_version=ray.__version__,
        python_version=platform.python_version(),
        auth=auth,
    )


def find_head() -> str:
    """The head, host:port, of the Ray that was started last on this machine.

    Raises:
        ClusterError: none runs here.
    """
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        address: str = canonicalize_bootstrap_address_or_die("auto")
    except ConnectionError as error:
        raise ClusterError(
            "auto: no Ray runs on this machine; start one with ray start --head, name another's "
            "address, or leave the address out"
        ) from error
    # `ray start` turned its token on if there was one: this process does the same.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    return address


def probe(address: str) -> Auth:
    """Ask a head, host:port or ray://host:port, whether this process may and can connect.

    Returns:
        whether it asks for a token.

    Raises:
        ClusterError: it is no address; nothing or something else listens there; the token is
            missing or wrong; its Ray or Python is another; it has no node on this machine.
    """
    place = _host_and_port(address)
    _probe_port(address, place)
    refresh_auth()
    if address.startswith(CLIENT):
        return _ask(address, _ping_client)[1]
    said, auth = _ask(address, _ask_metadata)
    refuse_versions(address, json.loads(said or b"{}"))
    _refuse_strangers(address)
    return auth


def refresh_auth() -> None:
    """Let Ray read the settings of its token anew: it keeps what it has read once."""
    raylet: Any = import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def refuse_versions(address: str, theirs: Mapping[str, str]) -> None:
    """Refuse a cluster of another Ray or Python.

    Args:
        theirs: ray_version and python_version; what is not there is not compared.

    Raises:
        ClusterError: naming both versions.
    """
    import ray

    mine = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    unequal = [name for name in mine if theirs.get(name, mine[name]) != mine[name]]
    if unequal:
        names = {"ray_version": "Ray", "python_version": "Python"}
        said = " and ".join(f"{names[n]} {theirs[n]}, here it is {mine[n]}" for n in unequal)
        raise ClusterError(
            f"{address} runs {said}; use the cluster's versions here, or build its image with these"
        )


def refuse_text_of_versions(address: str, text: str) -> None:
    """`refuse_versions` for what Ray itself says of them, if the text is that."""
    rays, pythons = re.findall(r"Ray: (\S+)", text), re.findall(r"Python: (\S+)", text)
    if rays and pythons:
        refuse_versions(address, {"ray_version": rays[0], "python_version": pythons[0]})


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise ClusterError(
            f"{address!r} is no address of a Ray; write host:6379, ray://host:10001, or auto"
        )
    return host.strip("[]"), int(port)


def _probe_port(address: str, place: tuple[str, int]) -> None:
    try:
        socket.create_connection(place, timeout=CONNECT_WITHIN).close()
    except OSError as error:
        reason = (error.strerror or str(error) or "no answer").lower()
        raise ClusterError(
            f"no Ray answers at {address} ({reason}); check host, port and firewall, or start one "
            f"there with ray start --head"
        ) from error


def _ask(address: str, call: Any) -> tuple[Any, Auth]:
    """The answer to a call, and whether it would have come without a token."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._private.grpc_utils import init_grpc_channel
    from ray.exceptions import AuthenticationError

    target = address.removeprefix(CLIENT)
    has_token = is_token_auth_enabled()
    try:
        with init_grpc_channel(target) as channel:
            answer = call(channel)
    except AuthenticationError as error:  # of this side: nothing was sent
        raise ClusterError(f"RAY_AUTH_MODE=token is set, but no token is; {_TOKEN}") from error
    except grpc.RpcError as error:
        raise _refusal(address, error.code(), has_token=has_token) from error
    return answer, "token" if has_token and _needs_token(target, call) else "none"


_TOKEN = "put the cluster's token in a file that RAY_AUTH_TOKEN_PATH names"  # noqa: S105


def _refusal(address: str, code: Any, *, has_token: bool) -> ClusterError:
    if code == grpc.StatusCode.UNAUTHENTICATED and has_token:
        return ClusterError(f"{address} refuses this token: it is not the cluster's; {_TOKEN}")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return ClusterError(
            f"{address} asks for a token and none was sent; set RAY_AUTH_MODE=token and {_TOKEN}"
        )
    reason = "no answer within seconds" if code == grpc.StatusCode.DEADLINE_EXCEEDED else "no Ray"
    return ClusterError(
        f"something listens at {address}, but it is no Ray head ({reason}); its port is 6379, "
        "Ray Client's is ray://host:10001, that of Jobs is http://host:8265"
    )


def _needs_token(target: str, call: Any) -> bool:
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    try:
        with grpc.insecure_channel(target) as channel:
            call(channel)
    except grpc.RpcError as error:
        return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _ask_metadata(channel: Any) -> bytes:
    """The head's versions, as JSON."""
    request = _message("gcs_service", "InternalKVGetRequest")
    stub = _stub("gcs_service", "InternalKVGcsService", channel)
    asked = request(key=b"CLUSTER_METADATA", namespace=b"cluster")
    value: bytes = stub.InternalKVGet(asked, timeout=ANSWER_WITHIN).value
    return value


def _ask_nodes(channel: Any) -> set[str]:
    """Numbers of the nodes that are or were in the cluster."""
    request = _message("gcs_service", "GetAllNodeInfoRequest")
    stub = _stub("gcs_service", "NodeInfoGcsService", channel)
    found = stub.GetAllNodeInfo(request(), timeout=ANSWER_WITHIN).node_info_list
    return {node.node_id.hex() for node in found}


def _ping_client(channel: Any) -> None:
    request, kind = (
        _message("ray_client", name) for name in ("ClusterInfoRequest", "ClusterInfoType")
    )
    stub = _stub("ray_client", "RayletDriver", channel)
    stub.ClusterInfo(request(type=kind.PING), timeout=ANSWER_WITHIN)


def _message(service: str, name: str) -> Any:
    return getattr(import_module(f"ray.core.generated.{service}_pb2"), name)


def _stub(service: str, name: str, channel: Any) -> Any:
    return getattr(import_module(f"ray.core.generated.{service}_pb2_grpc"), f"{name}Stub")(channel)


def _refuse_strangers(address: str) -> None:
    """A driver works through a node on its own machine; Ray would look a minute for one."""
    services: Any = import_module("ray._private.services")
    if not _ask(address, _ask_nodes)[0] & {*services.find_node_ids()}:
        raise ClusterError(
            f"{address} has no node on this machine; send the work with consilium submit, or join "
            f"by ray start --address={address}"
        )
