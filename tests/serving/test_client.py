"""The client against the real interface, on a real socket."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import uvicorn

from search.errors import DamagedImageError, ServingError
from serving.api import build_api
from serving.client import Client
from serving.service import Service
from tests.tiny import tiny_bytes


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    config = uvicorn.Config(build_api(service), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_paths_and_bytes_are_answered_alike_and_in_order(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "lesion.png"
    path.write_bytes(tiny_bytes(1))
    answer = client.predict(tiny_bytes(2), path, tiny_bytes(1), operating_point="balanced")
    other, from_path, from_bytes = answer.predictions
    assert from_path == from_bytes != other
    assert other.operating_point is not None
    assert other.operating_point.name == "balanced"


def test_the_model_is_told(client: Client, service: Service) -> None:
    assert client.model().bundle == service.identity
    assert client.ready()


def test_a_problem_becomes_one_line_with_its_code_and_detail(client: Client) -> None:
    with pytest.raises(ServingError, match="unknown_operating_point: no operating point 'x'"):
        client.predict(tiny_bytes(), operating_point="x")
    with pytest.raises(ServingError, match="unsupported_type: image 2 is no JPEG") as caught:
        client.predict(tiny_bytes(), b"text")
    assert "\n" not in str(caught.value)
    with pytest.raises(ServingError, match="no_image"):
        client.predict()


def test_a_file_that_is_not_there_is_named(client: Client, tmp_path: Path) -> None:
    with pytest.raises(DamagedImageError, match=r"gone\.jpg: no such file or directory"):
        client.predict(tmp_path / "gone.jpg")


def test_a_service_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client:
        assert not client.ready()
        with pytest.raises(ServingError, match=f"{url}: cannot be reached .*check that"):
            client.model()


def test_an_address_that_is_none_is_refused_in_one_line() -> None:
    with Client("box:8000") as client, pytest.raises(ServingError, match="cannot be reached"):
        client.model()


@pytest.mark.parametrize(
    ("status", "message"),
    [(200, "answers otherwise than this client expects"), (503, "503 Service Unavailable: hello")],
)
def test_another_server_at_the_address_is_told_apart(status: int, message: str) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with (
            Client(f"http://127.0.0.1:{server.server_port}") as client,
            pytest.raises(ServingError, match=message),
        ):
            client.model()
        thread.join()
