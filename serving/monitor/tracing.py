"""Traces of requests for an OpenTelemetry collector, over OTLP and HTTP.

A request's span continues the caller's trace; decode and members are its children. Of an
upload a span holds its size and nothing else: attributes are named here, all others are left out.
"""

import logging
from collections.abc import Mapping
from threading import Thread
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from search.errors import ServingError

Attribute = str | int | float | bool | None
SERVICE = "consilium"
ATTRIBUTES = frozenset(
    ("route", "status", "request_id", "bundle", "point", "images", "bytes", "asked", "cached")
)
LONGEST = 128  # characters of an attribute
QUEUED = 2048  # spans; while no collector takes them any more are dropped
EXPORT_S = 5.0  # that one export may take, its retries too
CLOSE_S = 1.5  # that a close waits for the last spans

logger = logging.getLogger(__name__)


class Span:
    """A piece of work as a context manager; this one is of no trace, and costs next to nothing."""

    def set(self, **attributes: Attribute) -> None:
        """Say what is known only now; see ATTRIBUTES."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        return False


NO_SPAN = Span()


class Tracer:
    """Gives spans; without a sender none of them is kept."""

    def __init__(self, sender: "_Sender | None" = None) -> None:
        self._sender = sender

    def span(
        self,
        name: str,
        *,
        parent: Span | None = None,
        traceparent: str | None = None,
        **attributes: Attribute,
    ) -> Span:
        """A span that lasts as long as its `with`.

        It is a child of `parent`, which may be of another thread; else it goes on with the trace
        that `traceparent` names (W3C Trace Context), or begins one if that is no such header.
        """
        if self._sender is None:
            return NO_SPAN
        try:
            return self._sender.begin(name, parent, traceparent, attributes)
        except Exception:  # no request fails for its trace
            logger.warning("no span could be begun", exc_info=True)
            return NO_SPAN

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None


def tracer_for(url: str | None) -> Tracer:
    """A tracer that sends to a collector, or none where there is no URL.

    Args:
        url: of the collector, such as http://collector:4318; /v1/traces is added to a bare host.

    Raises:
        ServingError: no http or https URL. One that cannot be reached is no error: it is logged.
    """
    if url is None:
        return Tracer()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ServingError(
            f"traces: {url!r} is no http:// or https:// URL; name an OpenTelemetry collector's, "
            "such as http://collector:4318"
        )
    path = parts.path if parts.path.strip("/") else "/v1/traces"
    return Tracer(_Sender(parts._replace(path=path).geturl()))


class _Sender:
    """Sends spans from a thread of its own; a request only puts them into a bounded queue."""

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

        self._exporter: SpanExporter = OTLPSpanExporter(endpoint, timeout=EXPORT_S)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": SERVICE}),
            shutdown_on_exit=False,  # it would wait half a minute for a collector that is gone
        )
        batches = BatchSpanProcessor(
            self._exporter,
            max_queue_size=QUEUED,
            max_export_batch_size=256,
            schedule_delay_millis=2000,
        )
        self._provider.add_span_processor(batches)
        self._tracer = self._provider.get_tracer(SERVICE)

    def begin(
        self,
        name: str,
        parent: Span | None,
        traceparent: str | None,
        attributes: Mapping[str, Attribute],
    ) -> Span:
        from opentelemetry.trace import SpanKind

        known = parent if isinstance(parent, _Open) else None
        span = self._tracer.start_span(
            name,
            context=_continued(traceparent) if known is None else known.context(),
            kind=SpanKind.SERVER if known is None else SpanKind.INTERNAL,
            attributes=_allowed(attributes),
        )
        return _Open(span)

    def close(self) -> None:
        last = Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(CLOSE_S)
        if last.is_alive():
            self._exporter.shutdown()  # ends the retries
            logger.warning("the last traces could not be sent in %s s", CLOSE_S)


class _Open(Span):
    """A span that is sent when its `with` ends."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def context(self) -> Any:
        """What a child of it is begun in."""
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(self._span, Context())

    def set(self, **attributes: Attribute) -> None:
        self._span.set_attributes(_allowed(attributes))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        from opentelemetry.trace import StatusCode

        if kind is not None:  # its name alone: a message may quote the upload
            self._span.set_status(StatusCode.ERROR, kind.__name__)
        self._span.end()
        return False


def _continued(traceparent: str | None) -> Any:
    """The caller's trace, or a context of none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if traceparent is None:
        return Context()
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())


def _allowed(attributes: Mapping[str, Attribute]) -> dict[str, str | int | float | bool]:
    return {
        key: value[:LONGEST] if isinstance(value, str) else value
        for key, value in attributes.items()
        if key in ATTRIBUTES and isinstance(value, str | int | float | bool)
    }
