"""Both clients against a small server on a real socket, which fails as told."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

from search.errors import ConfigError, DamagedImageError, ServingError
from serving.client import AsyncClient, Client
from serving.config import Canary, Rollout, Version
from serving.http.parameters import read_options
from serving.retries import Retries
from serving.schemas import (
    BundleIdentity,
    ExplainAnswer,
    Explanation,
    ImagePrediction,
    PredictAnswer,
    Problem,
    Uncertainty,
    VersionState,
)
from serving.scoring.compare import Counts
from serving.scoring.options import Options
from serving.scoring.state import RolloutState

KEY = "con_clinic_c2VjcmV0"
ROLLOUT = Rollout(
    bundles={"old": Version(path="old"), "new": Version(path="new")},
    serving="old",
    canary=Canary(name="new", percent=5),
)
BUNDLE = BundleIdentity(name="tiny", version="1", digest="0" * 64)
PREDICTION = ImagePrediction(
    probabilities={"benign": 0.25, "malignant": 0.75},
    decision="positive",
    operating_point=None,
    uncertainty=Uncertainty(spread=0.1, entropy=0.8),
    asked=2,
    sha256="0" * 64,
    width=40,
    height=32,
)
PREDICT = PredictAnswer(predictions=[PREDICTION], bundle=BUNDLE, request_id="r")
EXPLAIN = ExplainAnswer(
    explanation=Explanation(class_name="malignant", overlay_png="", map=[[1.0]], members={}),
    bundle=BUNDLE,
    request_id="r",
)
STATE = RolloutState(
    rollout=ROLLOUT,
    previous=None,
    versions=[VersionState(name="old", role="serving", digest="0" * 64)],
    comparisons={"canary": Counts(agreements=3)},
    reason=None,
)
ANSWERS = {
    "/v1/predict": PREDICT.model_dump_json(),
    "/v1/explain": EXPLAIN.model_dump_json(),
    "/v1/admin/rollout": STATE.model_dump_json(),
    "/v1/admin/rollback": STATE.model_dump_json(),
    "/v1/admin/promote": STATE.model_dump_json(),
    "/readyz": '{"status": "ready"}',
}


class Request(NamedTuple):
    """What the server saw."""

    method: str
    path: str
    query: list[tuple[str, str]]
    type: str | None
    key: str | None
    body: bytes


class Failure(NamedTuple):
    """What the server answers before it answers well."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    content: bytes = b""


class FakeServer(ThreadingHTTPServer):
    """Answers each path by its answer, after the failures that a test has put here."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures: list[Failure] = []
        self.seen: list[Request] = []
        self.queries: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_any(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        kind, key = self.headers["content-type"], self.headers["authorization"]
        query = parse_qsl(parts.query)
        self.server.queries.append(parts.query.encode())
        self.server.seen.append(Request(self.command, parts.path, query, kind, key, body))
        failure = Failure(200, {}, ANSWERS.get(parts.path, "").encode())
        if self.server.failures:
            failure = self.server.failures.pop(0)
        self.send_response(failure.status)
        for name, value in failure.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(failure.content)))
        self.end_headers()
        self.wfile.write(failure.content)

    do_GET = do_POST = do_PUT = do_any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Both:
    """One of the two clients behind the interface of the first; waits are noted, not waited."""

    def __init__(self, kind: type[Client] | type[AsyncClient], url: str, **options: Any) -> None:
        self.waits: list[float] = []
        self._kind, self._url, self._options = kind, url, options

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        """Open a client, call one method of it, close it."""
        if self._kind is Client:
            with Client(self._url, sleep=self.waits.append, **self._options) as client:
                return getattr(client, name)(*args, **options)
        return asyncio.run(self._call(name, *args, **options))

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        async with AsyncClient(self._url, sleep=self._note, **self._options) as client:
            return await getattr(client, name)(*args, **options)

    async def _note(self, seconds: float) -> None:
        self.waits.append(seconds)


Make = Callable[..., Both]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=[Client, AsyncClient])
def make(request: pytest.FixtureRequest, server: FakeServer) -> Make:
    """A client of either kind, by default of the fake server."""

    def make(url: str = server.url, **options: Any) -> Both:
        return Both(request.param, url, **options)

    return make


def busy(*statuses: int, after: str = "2") -> list[Failure]:
    return [Failure(status, {"Retry-After": after}) for status in statuses]


def problem(status: int, code: str, detail: str) -> Failure:
    document = Problem(title="", status=status, detail=detail, code=code, request_id="r")
    return Failure(status, {}, document.model_dump_json().encode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_one_image_goes_as_the_body_itself(server: FakeServer, make: Make) -> None:
    assert make().call("predict", b"file") == PREDICT
    assert server.seen == [
        Request("POST", "/v1/predict", [], "application/octet-stream", None, b"file")
    ]


def test_several_go_as_parts_in_the_order_given(
    server: FakeServer, make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "lesion.png"
    path.write_bytes(b"first")
    make().call("predict", path, b"second")
    [seen] = server.seen
    assert (seen.type or "").startswith("multipart/form-data; boundary=")
    assert seen.body.count(b'name="image"') == 2
    assert 0 < seen.body.index(b"first") < seen.body.index(b"second")
    assert b"lesion" not in seen.body  # a file's name may name a patient


def test_what_is_asked_for_goes_into_the_query(server: FakeServer, make: Make) -> None:
    make().call(
        "predict",
        b"file",
        operating_point="a b",
        prevalence={"benign": 0.9, "with:colon": 1e-05},
        members=True,
        explain=True,
    )
    assert server.seen[0].query == [
        ("operating_point", "a b"),
        ("prevalence", "benign:0.9"),
        ("prevalence", "with:colon:1e-05"),
        ("members", "true"),
        ("explain", "true"),
    ]
    assert read_options(server.queries[0]) == Options(
        operating_point="a b",
        prevalence={"benign": 0.9, "with:colon": 1e-05},
        members=True,
        explain=True,
    )


def test_an_explanation_is_asked_for_by_class(server: FakeServer, make: Make) -> None:
    assert make().call("explain", b"file", "malignant") == EXPLAIN
    make().call("explain", b"file")
    named, plain = server.seen
    assert (named.method, named.path, named.body) == ("POST", "/v1/explain", b"file")
    assert (named.query, plain.query) == ([("class", "malignant")], [])


def test_an_admin_moves_the_rollout(server: FakeServer, make: Make) -> None:
    both = make(api_key=KEY)
    calls: list[tuple[Any, ...]] = [
        ("rollout",),
        ("set_rollout", ROLLOUT),
        ("rollback",),
        ("promote",),
    ]
    assert [dict(both.call(*call)) for call in calls] == [dict(STATE)] * 4
    assert [(seen.method, seen.path.rpartition("/")[2]) for seen in server.seen] == [
        ("GET", "rollout"),
        ("PUT", "rollout"),
        ("POST", "rollback"),
        ("POST", "promote"),
    ]
    assert Rollout.model_validate(json.loads(server.seen[1].body)) == ROLLOUT
    assert {seen.key for seen in server.seen} == {f"Bearer {KEY}"}


def test_a_busy_service_is_asked_again_and_not_too_early(server: FakeServer, make: Make) -> None:
    server.failures = busy(429, 503, 429)
    both = make()
    assert both.call("predict", b"file") == PREDICT
    assert [seen.body for seen in server.seen] == [b"file"] * 4
    assert len(both.waits) == 3
    limits = (0.2, 0.4, 0.8)
    assert all(2 <= wait <= 2 + most for wait, most in zip(both.waits, limits, strict=True))


def test_several_images_are_sent_again_whole(server: FakeServer, make: Make) -> None:
    server.failures = busy(503)
    make().call("predict", b"first", b"second")
    assert [seen.body.count(b"second") for seen in server.seen] == [1, 1]


def test_the_last_refusal_is_told(server: FakeServer, make: Make) -> None:
    overloaded = problem(429, "overloaded", "too many images wait")
    server.failures = [overloaded] * 4
    both = make(retries=Retries(attempts=3))
    with pytest.raises(ServingError, match=r"overloaded: too many images wait$"):
        both.call("predict", b"file")
    assert (len(server.seen), len(both.waits)) == (3, 2)


def test_a_service_that_asks_for_too_much_patience_is_not_asked_again(
    server: FakeServer, make: Make
) -> None:
    server.failures = busy(503, after="61")
    with pytest.raises(ServingError, match=r"503 Service Unavailable"):
        make().call("model")
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 408, 413, 422, 500, 502])
def test_other_failures_are_final(server: FakeServer, make: Make, status: int) -> None:
    server.failures = [problem(status, "some_code", "why")]
    with pytest.raises(ServingError, match=r"some_code: why$"):
        make().call("predict", b"file")
    assert len(server.seen) == 1


@pytest.mark.parametrize("name", ["rollback", "promote"])
def test_what_must_not_happen_twice_is_sent_once(server: FakeServer, make: Make, name: str) -> None:
    server.failures = busy(503)
    with pytest.raises(ServingError, match=r"503 Service Unavailable"):
        make().call(name)
    assert len(server.seen) == 1


def test_a_connection_that_is_refused_is_tried_again(make: Make) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    both = make(url)
    with pytest.raises(ServingError, match=rf"^{url}: cannot be reached .*check that"):
        both.call("model")
    assert len(both.waits) == 3
    assert not both.call("ready")
    assert len(both.waits) == 3


def test_a_connection_that_breaks_once_the_request_is_sent_is_not(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def hang_up() -> None:
            connection, _ = listener.accept()
            accepted.append(connection.recv(65_536))
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        both = make(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(ServingError, match=r"cannot be reached"):
            both.call("model")
        thread.join()
    assert (len(accepted), both.waits) == (1, [])


def test_a_silent_service_is_given_up(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and never answers
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for options in ({"timeout_s": 0.05}, {"retries": Retries(deadline_s=0.05)}):
            both = make(url, **options)
            with pytest.raises(ServingError, match=r"cannot be reached .*[Tt]ime"):
                both.call("predict", b"file")
            assert both.waits == []


def test_an_answer_that_drips_past_the_deadline_is_given_up(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            try:
                for _ in range(500):
                    connection.sendall(b" ")
                    tick.wait(0.01)
            except OSError:
                pass  # the client has hung up, as it should
            connection.close()

        tick = threading.Event()
        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServingError, match=r"the answer was not whole in time"):
            make(url, retries=Retries(deadline_s=0.1)).call("model")
        thread.join()


def test_ready_is_what_the_service_says(server: FakeServer, make: Make) -> None:
    both = make()
    assert both.call("ready")
    server.failures = [problem(503, "not_ready", "starting")]
    assert not both.call("ready")
    assert len(server.seen) == 2


def test_a_file_that_is_not_there_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DamagedImageError, match=r"gone\.jpg: no such file or directory"):
        make().call("predict", tmp_path / "gone.jpg")


def test_no_image_is_the_services_to_refuse(server: FakeServer, make: Make) -> None:
    server.failures = [problem(422, "no_image", "no image")]
    with pytest.raises(ServingError, match=r"no_image"):
        make().call("predict")
    assert server.seen[0].body == b""


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(200, {}, b"hello"), "answers otherwise than this client expects"),
        (Failure(404, {}, b"hello\nyou"), "404 Not Found: hello you$"),
        (Failure(307, {"Location": "http://127.0.0.1:1/"}), "307 Temporary Redirect"),
    ],
)
def test_another_server_at_the_address_is_told_apart(
    server: FakeServer, make: Make, failure: Failure, message: str
) -> None:
    server.failures = [failure]
    with pytest.raises(ServingError, match=message):
        make().call("model")


@pytest.mark.parametrize(
    "failure",
    [Failure(400, {}, f"Authorization: Bearer {KEY}".encode()), problem(401, "no", f"not {KEY}")],
)
def test_a_key_is_in_no_message(server: FakeServer, make: Make, failure: Failure) -> None:
    server.failures = [failure]
    with pytest.raises(ServingError, match=r"\*\*\*") as caught:
        make(api_key=KEY).call("model")
    assert "c2VjcmV0" not in str(caught.value)
    assert server.seen[0].key == f"Bearer {KEY}"


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} x", "schlüssel"])
def test_a_key_that_no_header_takes_is_refused_unseen(make: Make, key: str) -> None:
    with pytest.raises(ConfigError, match=r"the API key has characters") as caught:
        make(api_key=key).call("model")
    assert key.strip() not in str(caught.value)


def test_a_password_in_the_address_is_in_no_message(server: FakeServer, make: Make) -> None:
    server.failures = [problem(401, "no", "why")]
    url = server.url.replace("//", "//user:secret@")
    with pytest.raises(ServingError, match=rf"^{server.url}: no: why$"):
        make(url).call("model")
    with pytest.raises(ConfigError, match=r"^\[::1: no address; one looks like"):
        make("http://user:secret@[::1").call("model")


def test_an_address_without_a_scheme_is_refused_in_one_line(make: Make) -> None:
    both = make("box:8000")
    with pytest.raises(ServingError, match=r"^box:8000: cannot be reached"):
        both.call("model")
    assert both.waits == []


def test_threads_share_a_client(server: FakeServer) -> None:
    server.failures = busy(*[429] * 5, after="0")
    answers: list[PredictAnswer] = []
    with Client(server.url, sleep=lambda seconds: None, retries=Retries(attempts=9)) as client:

        def ask(files: Sequence[bytes]) -> None:
            answers.extend(client.predict(file) for file in files)

        threads = [threading.Thread(target=ask, args=([b"file"] * 5,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [PREDICT] * 20
    assert len(server.seen) == 25
