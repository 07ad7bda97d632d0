"""The one place that decides where Ray runs."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

from search.errors import ConsiliumError

# What a training step frees, the next one takes again: glibc shall not hand it back to the system
# in between. A step of MobileNetV2 on a CPU takes a fifth less. Workers read this as they start.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}


@contextmanager
def connected(
    address: str | None = None, *, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Ray for the length of the block: started in this process, or an existing one by address.

    A Ray started here has no dashboard and leaves no file behind. Its node's address is loopback's,
    but some of Ray's own ports listen on every interface: keep a firewall before a machine that
    others can reach.

    Args:
        address: of an existing cluster; RAY_ADDRESS counts if it is None.
        environment: of the processes of a Ray that is started here; what is set already counts.

    Raises:
        ConsiliumError: nothing answers at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        yield from _existing(address)
    else:
        yield from _embedded(environment or {})


def _existing(address: str) -> Iterator[None]:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConsiliumError(
            f"no Ray answers at {address}; start one there, or leave the address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _embedded(environment: Mapping[str, str]) -> Iterator[None]:
    # Unix sockets bear 107 characters: the folder's name must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in {**ALLOCATOR, **environment}.items():
        os.environ.setdefault(name, value)
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
            signal.signal(signal.SIGTERM, _stop)  # Ray's own handler ends without cleaning up
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _stop(signum: int, _: object) -> None:
    """Leave by the way that shuts Ray down and takes its folder away."""
    sys.exit(128 + signum)
