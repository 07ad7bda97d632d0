"""Clusters that cannot be talked to: one clear line each, within seconds, and nothing is sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray

from cluster.jobs import client
from tests.cluster.refusals import refusal
from tests.experiments import write_experiment
from tests.servers import free_port

VERSION = {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""}
JOB = {"type": "SUBMISSION", "status": "RUNNING", "entrypoint": "sleep 9", "metadata": {}}


@contextmanager
def a_server(
    answers: dict[str, tuple[int, object]], asked: list[str] | None = None
) -> Iterator[str]:
    """An HTTP server's address; a path it has no answer for is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, "nothing here"))
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            if asked is not None:
                asked.append(self.path)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert refusal(capsys, "status", "--address", address) == (
        f"consilium: {address}: cannot be reached; start a head with ray start --head "
        "--dashboard-host, open the way to its port 8265, or name another --address"
    )


def test_a_server_that_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUTS", (0.2, 0.2))
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # takes connections, no more
    with server:
        address = f"127.0.0.1:{server.server_port}"
        assert "does not answer in time" in refusal(capsys, "status", "--address", address)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, "not found"), "is no Jobs API of Ray's; name the head's dashboard"),
        ((200, "<html>welcome</html>"), "is no Jobs API of Ray's; name the head's dashboard"),
        ((200, {"version": 4}), "is no Jobs API of Ray's; name the head's dashboard"),
        ((500, "oh"), "is no Jobs API of Ray's; name the head's dashboard"),
        ((401, "Unauthorized"), "asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ((403, "Forbidden"), "refuses the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ((200, VERSION | {"ray_version": "1.8"}), "is no Jobs API of Ray's"),
    ],
    ids=["absent", "page", "other", "broken", "no token", "wrong token", "ancient"],
)
def test_what_answers_is_no_cluster_of_ours(
    capsys: pytest.CaptureFixture[str], answer: tuple[int, object], message: str
) -> None:
    with a_server({"/api/version": answer}) as address:
        line = refusal(capsys, "status", "--address", address)
    assert line.startswith(f"consilium: {address}: {message}")


@pytest.mark.parametrize(
    "address",
    ["ray://head:10001", "auto", "http://", "os.path://x", "http://a b", "file:///etc/passwd"],
)
def test_an_address_of_another_kind(capsys: pytest.CaptureFixture[str], address: str) -> None:
    line = refusal(capsys, "status", "--address", address)
    if address == "auto":
        assert "cannot be reached" in line
    else:
        assert line == f"consilium: --address is http://head:8265, say, not {address!r}"


def test_a_login_in_an_address_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "status", "--address", "http://ada:open-sesame@head:8265")
    assert line.endswith("not 'http://head:8265'")


def test_the_address_given_counts_not_the_environments(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    with a_server({"/api/version": (404, "")}) as address:
        assert f"{address}: is no" in refusal(capsys, "status", "--address", address)


def test_another_ray_gets_no_job(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    asked: list[str] = []
    answers: dict[str, tuple[int, object]] = {
        "/api/version": (200, VERSION | {"ray_version": "2.9.3"})
    }
    with a_server(answers, asked) as address:
        line = refusal(capsys, "submit", path, "--address", address)
    assert f"Ray 2.9.3 is there, {ray.__version__} is here; pip install" in line
    assert set(asked) == {"/api/version"}


@pytest.mark.parametrize("job_id", ["absent", "../../api/version", "a b", "x" * 200, "theirs"])
def test_a_job_that_is_none_of_ours(capsys: pytest.CaptureFixture[str], job_id: str) -> None:
    asked: list[str] = []
    answers: dict[str, tuple[int, object]] = {
        "/api/version": (200, VERSION),
        "/api/jobs/theirs": (200, JOB | {"submission_id": "theirs"}),
    }
    with a_server(answers, asked) as address:
        for command in ("status", "logs", "stop"):
            line = refusal(capsys, command, job_id, "--address", address)
            assert f"knows no job {job_id!r} of consilium submit" in line
    assert set(asked) <= {"/api/version", "/api/jobs/absent", "/api/jobs/theirs"}


def test_what_the_cluster_stumbles_over_is_its_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trace = "Traceback (most recent call last):\n  File x\nValueError: the disk is full\n"
    answers: dict[str, tuple[int, object]] = {
        "/api/version": (200, VERSION),
        "/api/jobs/": (500, trace),
    }
    with a_server(answers) as address:
        line = refusal(capsys, "status", "--address", address)
    assert line == f"consilium: {address}: 500: ValueError: the disk is full"
