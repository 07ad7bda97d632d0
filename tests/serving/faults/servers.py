"""The service behind uvicorn in a thread: HTTP for real, no Ray."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from serving.http.api import build_api
from serving.scoring.service import Service


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The URL of a service that is ready; the server ends with the block."""
    config = uvicorn.Config(build_api(service), port=0, log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    while not server.started:
        assert thread.is_alive(), "uvicorn ended as it started"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
