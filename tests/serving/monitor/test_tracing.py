from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from search.errors import ServingError
from serving.monitor.tracing import NO_SPAN, Tracer, tracer_for

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Collector:
    """What an OpenTelemetry collector was sent."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def spans(self) -> dict[str, Any]:
        """By name."""
        resources = [r for request in self.requests for r in request.resource_spans]
        return {s.name: s for r in resources for scope in r.scope_spans for s in scope.spans}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.paths.append(self.path)
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def trace_a_request(tracer: Tracer, traceparent: str | None = None) -> None:
    with tracer.span("request", traceparent=traceparent, route="/v1/predict") as request:
        with tracer.span("decode", parent=request, bytes=1234):
            pass
        request.set(status=200)


def fail_in_a_span(tracer: Tracer) -> None:
    with tracer.span("decode", bytes=7, filename="secret.jpg", route="x" * 999) as span:
        span.set(body="secret")
        raise ValueError("secret.jpg is damaged")


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_request_and_its_parts_arrive_as_one_trace() -> None:
    with collecting() as collector:
        tracer = tracer_for(collector.url)
        trace_a_request(tracer)
        tracer.close()
    request, decode = collector.spans["request"], collector.spans["decode"]
    assert collector.paths == ["/v1/traces"]
    assert decode.parent_span_id == request.span_id
    assert decode.trace_id == request.trace_id
    assert attributes(request) == {"route": "/v1/predict", "status": 200}
    assert attributes(decode) == {"bytes": 1234}
    resource = collector.requests[0].resource_spans[0].resource
    assert attributes(resource)["service.name"] == "consilium"


def test_the_callers_trace_goes_on() -> None:
    with collecting() as collector:
        tracer = tracer_for(collector.url + "/own/path")
        trace_a_request(tracer, f"00-{TRACE}-{CALLER}-01")
        tracer.close()
    assert collector.paths == ["/own/path"]
    assert collector.spans["request"].trace_id.hex() == TRACE
    assert collector.spans["request"].parent_span_id.hex() == CALLER


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{CALLER}-01", "\x00" * 999])
def test_a_header_that_is_none_begins_a_trace_of_its_own(header: str) -> None:
    with collecting() as collector:
        tracer = tracer_for(collector.url)
        trace_a_request(tracer, header)
        tracer.close()
    assert collector.spans["request"].parent_span_id == b""
    assert any(collector.spans["request"].trace_id)


def test_two_requests_are_two_traces() -> None:
    with collecting() as collector:
        tracer = tracer_for(collector.url)
        with tracer.span("one"), tracer.span("two"):
            pass
        tracer.close()
    assert collector.spans["one"].trace_id != collector.spans["two"].trace_id


def test_nothing_of_an_upload_but_its_size_gets_into_a_span() -> None:
    with collecting() as collector:
        tracer = tracer_for(collector.url)
        with pytest.raises(ValueError, match=r"secret"):
            fail_in_a_span(tracer)
        tracer.close()
    decode = collector.spans["decode"]
    assert attributes(decode) == {"bytes": 7, "route": "x" * 128}
    assert "secret" not in str(collector.requests)
    assert (decode.status.code, decode.status.message) == (2, "ValueError")


def test_without_a_url_no_span_is_made() -> None:
    tracer = tracer_for(None)
    with tracer.span("request", bytes=1) as span, tracer.span("decode", parent=span) as inner:
        span.set(status=200)
    assert span is NO_SPAN
    assert inner is NO_SPAN
    tracer.close()


def test_a_collector_that_cannot_be_reached_fails_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with collecting() as collector:
        gone = collector.url
    tracer = tracer_for(gone)
    trace_a_request(tracer)
    tracer.close()
    trace_a_request(tracer)  # after the close, too
    tracer.close()
    assert "could not be sent" in caplog.text or "Failed to export" in caplog.text


@pytest.mark.parametrize("url", ["collector:4318", "ftp://collector", "http://", "file:///etc"])
def test_a_url_of_no_collector_is_refused(url: str) -> None:
    with pytest.raises(ServingError, match=r"no http:// or https:// URL; name an OpenTelemetry"):
        tracer_for(url)
