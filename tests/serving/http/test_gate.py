"""The gate before Ray Serve: what it takes out, what it bounds, what it lets be."""

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from ray.serve._private.constants import SERVE_INGRESS_ROUTER_HEADER_PREFIX
from ray.serve._private.http_util import (
    RequestIdMiddleware,
    parse_disconnect_disabled_header,
    parse_request_timeout_header,
    parse_session_id_header,
    validate_http_proxy_callback_return,
)

from serving.http.gate import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES, Gate, middlewares
from serving.schemas import Problem

Headers = list[tuple[bytes, bytes]]
NEW_ID = re.compile(rb"[0-9a-f]{32}")


class Reached:
    """An app that keeps the scope it is called with."""

    scope: dict[str, Any] | None = None

    async def __call__(self, scope: Any, *_: Any) -> None:
        self.scope = scope


def through(headers: Headers, **scope: Any) -> tuple[Headers | None, list[Any]]:
    """What a gate makes of a request: the headers that pass, else None, and what it sends."""
    app, sent = Reached(), []
    request = {"type": "http", "path": "/", "raw_path": b"/", "query_string": b""} | scope

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the gate reads no body")

    asyncio.run(Gate(app)(request | {"headers": headers}, receive, send))
    return None if app.scope is None else app.scope["headers"], sent


def passed(headers: Headers, **scope: Any) -> Headers:
    """The headers that pass, without the request id."""
    kept, sent = through(headers, **scope)
    assert kept is not None
    assert sent == []
    assert [name for name, _ in kept].count(b"x-request-id") == 1
    return [header for header in kept if header[0] != b"x-request-id"]


def refused(headers: Headers, **scope: Any) -> Problem:
    kept, (start, body) = through(headers, **scope)
    assert kept is None
    fields = dict(start["headers"])
    assert start["status"] == 400
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"connection"] == b"close"
    assert fields[b"content-length"] == str(len(body["body"])).encode()
    document = json.loads(body["body"])
    problem = Problem.model_validate(document)
    assert problem.model_dump() == document
    assert (problem.status, problem.code) == (400, "malformed_request")
    assert fields[b"x-request-id"] == problem.request_id.encode()
    return problem


PLAIN: Headers = [
    (b"host", b"localhost"),
    (b"content-type", b"image/png"),
    (b"content-length", b"12"),
    (b"authorization", b"Bearer x"),
    (b"accept", b"*/*"),
]


def test_an_ordinary_request_passes_with_an_id() -> None:
    assert passed(PLAIN) == PLAIN
    kept, _ = through(PLAIN)
    assert kept is not None
    assert NEW_ID.fullmatch(dict(kept)[b"x-request-id"])


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"X-Request-Timeout-Seconds",
        b"x_request_timeout_seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"Serve_Multiplexed-Model_ID",
        b"x-session-id",
        b"X_SESSION_ID",
        b"x-serve-router-target",
        b"X_Serve_Router_x",
    ],
)
def test_what_serve_would_obey_is_taken_out(name: bytes) -> None:
    assert passed([*PLAIN, (name, b"0"), (name, b"1")]) == PLAIN


def test_serve_reads_nothing_of_a_client_any_more() -> None:
    commands = [
        (b"x-request-timeout-seconds", b"0"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"x-session-id", b"mine"),
        (SERVE_INGRESS_ROUTER_HEADER_PREFIX.encode() + b"a", b"1"),
    ]
    heard = dict(commands)
    assert parse_request_timeout_header(heard, 30) is None
    assert parse_disconnect_disabled_header(heard)
    assert parse_session_id_header(heard) == "mine"
    left = dict(passed(commands))
    assert parse_request_timeout_header(left, 30) == 30
    assert not parse_disconnect_disabled_header(left)
    assert parse_session_id_header(left) == ""
    assert left == {}


def test_a_session_header_of_the_operators_name_is_taken_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_SERVE_SESSION_ID_HEADER_KEY", "X-Sticky_To")
    assert passed([*PLAIN, (b"x-sticky-to", b"a"), (b"x-session-id", b"b")]) == PLAIN


@pytest.mark.parametrize("name", [b"x-request-id", b"X-Request-Id", b"x_request_id"])
def test_a_plain_request_id_stays(name: bytes) -> None:
    kept, _ = through([(name, b"Ward-3.scan_7")])
    assert kept == [(b"x-request-id", b"Ward-3.scan_7")]


@pytest.mark.parametrize(
    "given",
    [
        [b""],
        [b"x" * 65],
        [b"a b"],
        [b"a\n"],
        [b"\xc3\xa9"],
        [b"<script>"],
        [b"good", b"good"],
    ],
)
def test_any_other_request_id_is_replaced(given: list[bytes]) -> None:
    kept, _ = through([(b"x-request-id", value) for value in given])
    assert kept is not None
    ((name, value),) = kept
    assert name == b"x-request-id"
    assert NEW_ID.fullmatch(value)


def test_serve_takes_over_the_id_and_answers_it_once() -> None:
    """Serve's own middleware stands behind the gate."""
    sent: list[Any] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    request = {"type": "http", "path": "/", "query_string": b"", "headers": [(b"a", b"b")]}
    asyncio.run(Gate(RequestIdMiddleware(answer))(request, None, send))  # type: ignore[arg-type]
    ((name, value),) = sent[0]["headers"]
    assert name.lower() == b"x-request-id"
    assert NEW_ID.fullmatch(value)


@pytest.mark.parametrize("name", [b"traceparent", b"tracestate"])
def test_traces_pass_only_as_short_plain_text(name: bytes) -> None:
    good = (name, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert passed([good]) == [good]
    assert passed([(name, b"\xff\xfe")]) == []
    assert passed([(name, b"x" * 513)]) == []


def test_headers_are_bounded_by_number_and_size() -> None:
    many = [(b"a%d" % index, b"b") for index in range(MAX_HEADERS)]
    assert passed(many) == many
    assert "more than 100 headers" in refused([*many, (b"a", b"b")]).detail
    large = (b"a", b"b" * (MAX_HEADER_BYTES - 1))
    assert passed([large]) == [large]
    assert "32768 bytes of headers" in refused([large, (b"", b"c")]).detail


def test_what_is_taken_out_counts_too() -> None:
    assert refused([(b"x-session-id", b"b" * MAX_HEADER_BYTES)])


def test_the_url_is_bounded_with_its_query() -> None:
    path, query = b"/" + b"a" * 99, b"b" * (MAX_URL_BYTES - 100)
    passed([], raw_path=path, query_string=query)
    assert "URL is longer" in refused([], raw_path=path, query_string=query + b"b").detail
    assert refused([], raw_path=None, path="/" + "é" * (MAX_URL_BYTES // 2))


@pytest.mark.parametrize(
    "framing",
    [
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"5"), (b"Content-Length", b"5")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity")],
        [(b"content-length", b"-5")],
        [(b"content-length", b"5, 5")],
        [(b"content-length", b"")],
    ],
)
def test_a_body_whose_length_is_in_doubt_is_refused(framing: Headers) -> None:
    assert "the body's length" in refused([(b"host", b"a"), *framing]).detail


def test_a_body_in_chunks_passes() -> None:
    assert passed([(b"transfer-encoding", b"chunked")]) == [(b"transfer-encoding", b"chunked")]


def test_serves_own_paths_pass() -> None:
    for path in ("/-/healthz", "/-/routes"):
        assert passed(PLAIN, path=path, raw_path=path.encode()) == PLAIN


def test_a_websocket_is_closed_and_a_lifespan_is_not_the_gates() -> None:
    kept, sent = through([], type="websocket")
    assert kept is None
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert through([(b"a", b"b")], type="lifespan")[0] == [(b"a", b"b")]


def test_serve_takes_the_callback() -> None:
    (middleware,) = validate_http_proxy_callback_return(middlewares())
    assert repr(middleware) == "Middleware(Gate)"


def test_a_proxy_loads_little_for_it() -> None:
    heavy = "{'fastapi', 'numpy', 'torch', 'ray', 'pydantic'} & set(sys.modules)"
    code = f"import sys; import serving.http.gate; assert not ({heavy}), {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
