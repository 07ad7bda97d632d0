"""The one place that decides where Ray runs."""

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

from cluster.console import messages
from cluster.found import (
    CLIENT,
    JOBS,
    Auth,
    Cluster,
    find_head,
    look_around,
    probe,
    refresh_auth,
    refuse_text_of_versions,
)
from search.errors import ClusterError

# What a training step frees, the next one takes again: glibc shall not hand it back to the system
# in between. A step of MobileNetV2 on a CPU takes a fifth less. Workers read this as they start.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
EMBEDDED = "local"


@contextmanager
def connected(
    address: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    client: bool = False,
    grows: bool = False,
) -> Iterator[Cluster]:
    """Ray for the length of the block: started in this process, or an existing one by address.

    A Ray started here has no dashboard and leaves no file behind. Its node's address is loopback's,
    but some of Ray's own ports listen on every interface: they ask for a token of this Ray's own.
    What an existing one has is said on stderr.

    Args:
        address: auto, host:6379 or ray://host:10001 of an existing cluster; RAY_ADDRESS counts if
            it is None.
        environment: of the processes of a Ray that is started here; what is set already counts.
        client: whether the driver's own work may run elsewhere than here, as by ray://; a search's
            may not, for it writes the study.
        grows: whether a cluster without CPUs is fine, as it will be asked to start nodes.

    Raises:
        ClusterError: nothing answers at the address within seconds, or what does cannot be used;
            see `cluster.found.probe`.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address != EMBEDDED:
        yield from _existing(address, client=client, grows=grows)
    else:
        yield from _embedded(environment or {})


def _existing(given: str, *, client: bool, grows: bool) -> Iterator[Cluster]:
    _refuse_kind(given, client=client)
    address = find_head() if given == "auto" else given
    auth = probe(address)
    _join(address)
    try:
        cluster = look_around(address, auth)
        if cluster.cpus < 1 and not grows:
            raise ClusterError(
                f"{address} has no CPUs on its {cluster.nodes} nodes; add a node that has, with "
                f"ray start --address={address} --num-cpus=4, or set resources.grow in the config "
                "where the cluster starts nodes itself"
            )
        messages.print(cluster.describe(), soft_wrap=True)
        yield cluster
    finally:
        ray.shutdown()


def _refuse_kind(address: str, *, client: bool) -> None:
    if address.startswith(JOBS):
        raise ClusterError(
            f"{address} takes jobs, not drivers; use consilium submit CONFIG --address {address}"
        )
    if address.startswith(CLIENT) and not client:
        raise ClusterError(
            f"{address}: through Ray Client the study would be written elsewhere than it is led; "
            "use consilium submit CONFIG --address http://host:8265"
        )


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        refuse_text_of_versions(address, str(error))
        raise ClusterError(
            f"{address} answers but cannot be joined ({' '.join(str(error).split())[:200]}); see "
            "consilium doctor"
        ) from error


def _embedded(environment: Mapping[str, str]) -> Iterator[Cluster]:
    # Unix sockets bear 107 characters: the folder's name must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in {**ALLOCATOR, **environment}.items():
        os.environ.setdefault(name, value)
    try:
        with _own_token(folder) as auth:
            try:
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(folder),
                    _node_ip_address="127.0.0.1",
                )
                if threading.current_thread() is threading.main_thread():
                    # Ray's own handler ends without cleaning up
                    signal.signal(signal.SIGTERM, _stop)
                yield look_around(EMBEDDED, auth)
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_token(folder: Path) -> Iterator[Auth]:
    """A token that ends with this Ray; Ray itself would keep one in ~/.ray for all to come.

    Where RAY_AUTH_MODE is set, it is left to Ray.
    """
    if mode := os.environ.get("RAY_AUTH_MODE"):
        yield "token" if mode.lower() == "token" else "none"
        return
    file = folder / "auth_token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    refresh_auth()
    try:
        yield "token"
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        refresh_auth()


def _stop(signum: int, _: object) -> None:
    """Leave by the way that shuts Ray down and takes its folder away."""
    sys.exit(128 + signum)
