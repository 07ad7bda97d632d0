"""A Ray of a test's own, which leaves nothing behind."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def started_ray(*, num_cpus: int) -> Iterator[None]:
    """Ray in a folder of its own, without a dashboard."""
    folder = tempfile.mkdtemp(prefix="ray")  # short: Unix sockets bear 107 characters
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
