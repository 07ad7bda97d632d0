"""Apps on real sockets."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from serving.config import ServingConfig
from serving.explain.explainer import Explainer
from serving.http.api import build_api
from serving.scoring.service import Service
from tests.servers import free_port


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """The URL of this app on a free loopback port."""
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the app does not start"
            thread.join(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def live(config: ServingConfig) -> Iterator[str]:
    """The URL of a whole service but for Ray: the real interface, scoring and explanations."""
    explainer = Explainer(config.max_pixels)

    async def explain(*asked: Any) -> dict[str, Any]:
        return await asyncio.to_thread(explainer.explain, *asked)

    service = Service(config, explain=explain)
    assert config.rollout is not None
    service.start(config.rollout)
    try:
        with listening(build_api(service)) as url:
            yield url
    finally:
        service.close()
