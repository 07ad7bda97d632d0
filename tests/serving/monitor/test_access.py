"""The access log: one bounded JSON line a request."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.monitor.access import LOGGER, Access, AccessLog

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def line_of(access: Access) -> str:
    stream = io.StringIO()
    AccessLog(stream, now=lambda: NOON).write(access)
    text = stream.getvalue()
    assert text.endswith("\n")
    return text[:-1]


def test_a_request_is_one_line() -> None:
    access = Access(request_id="r1", method="POST", route="/v1/predict")
    access.key, access.client, access.status = "ward-3", "192.0.2.7", 200
    access.bytes_in, access.seconds, access.bundle = 1234, 0.01234567, "ab" * 32
    assert json.loads(line_of(access)) == {
        "time": "2026-11-21T12:00:00.000+00:00",
        "request_id": "r1",
        "key": "ward-3",
        "client": "192.0.2.7",
        "method": "POST",
        "route": "/v1/predict",
        "status": 200,
        "bytes_in": 1234,
        "seconds": 0.012346,
        "bundle": "abababababab",
    }


def test_what_is_not_known_is_null() -> None:
    found = json.loads(line_of(Access(request_id="r", method="GET", route="/")))
    assert [name for name, value in found.items() if value is None] == ["key", "client", "bundle"]


@given(st.lists(st.text(), min_size=6, max_size=6))
def test_no_text_breaks_or_swells_the_line(texts: list[str]) -> None:
    request_id, method, route, client, key, bundle = (text * 50 for text in texts)
    access = Access(
        request_id=request_id, method=method, route=route, client=client, key=key, bundle=bundle
    )
    line = line_of(access)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 6000
    assert json.loads(line)["route"] == route[:128]


def test_a_stream_that_is_gone_keeps_no_answer_back() -> None:
    stream = io.StringIO()
    log = AccessLog(stream)
    stream.close()
    log.write(Access(request_id="r", method="GET", route="/"))


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The log's own logger as nobody has set it up, put back afterwards."""
    logger = logging.getLogger(LOGGER)
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    yield logger
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_without_a_stream_bare_lines_go_to_stderr_once(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    AccessLog()
    AccessLog().write(Access(request_id="100%s", method="GET", route="/"))
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["request_id"] == "100%s"


def test_a_logger_that_somebody_set_up_is_left_alone(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    logger.setLevel(logging.INFO)
    AccessLog().write(Access(request_id="r", method="GET", route="/"))
    assert json.loads(stream.getvalue())["route"] == "/"
    assert len(logger.handlers) == 1
    assert capsys.readouterr().err == ""
