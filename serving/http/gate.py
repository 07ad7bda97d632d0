"""What stands before Ray Serve: import path `serving.http.gate:middlewares`.

Serve lets clients switch its timeout off, stay when they are gone, choose replicas and name log
lines by headers. Set through RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, this is the outermost
middleware of each proxy and of each replica that HAProxy asks; it loads nothing heavy.

/-/healthz and /-/routes are Serve's own and pass.
"""

import json
import os
import re

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_URL_BYTES = 8 * 1024
MAX_TRACE_BYTES = 512  # W3C Trace Context asks for at least this much of tracestate
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# Names are compared as Serve does: any case, - and _ alike.
DROPPED = frozenset(
    {
        b"x_request_timeout_seconds",  # 0 or less switches the timeout off
        b"x_request_disconnect_disabled",
        b"serve_multiplexed_model_id",
        b"x_session_id",
    }
)
ROUTER = b"x_serve_router_"  # Serve trusts these where its own router sets them
TRACES = frozenset({b"traceparent", b"tracestate"})


def middlewares() -> list[Middleware]:
    """What Serve asks for once at the start of each proxy and replica."""
    return [Middleware(Gate)]


class Gate:
    """ASGI middleware that takes out of a request what Serve would obey, and bounds the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        session = os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id")
        self._dropped = DROPPED | {session.encode().lower().replace(b"-", b"_")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a cleaned request on, or answer 400."""
        if scope["type"] == "http":
            refusal = self._clean(scope)
            if refusal is not None:
                await _refuse(send, refusal)
                return
        elif scope["type"] == "websocket":  # the service has none
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _clean(self, scope: Scope) -> str | None:
        """Replace the scope's headers; or why the request is refused."""
        headers = scope["headers"]
        if len(headers) > MAX_HEADERS:
            return f"more than {MAX_HEADERS} headers; send fewer"
        path = scope.get("raw_path") or scope["path"].encode()
        if len(path) + len(scope["query_string"]) > MAX_URL_BYTES:
            return f"the URL is longer than {MAX_URL_BYTES} bytes; shorten it"
        size, kept, ids, lengths, encodings = 0, [], [], [], 0
        for header in headers:
            name, value = header
            size += len(name) + len(value)
            plain = name.lower().replace(b"-", b"_")
            if plain in self._dropped or plain.startswith(ROUTER):
                continue
            if plain == b"x_request_id":
                ids.append(value)
                continue
            if plain in TRACES and not _is_trace(value):
                continue
            if plain == b"content_length":
                lengths.append(value)
            elif plain == b"transfer_encoding":
                encodings += 1
            kept.append(header)
        if size > MAX_HEADER_BYTES:
            return f"more than {MAX_HEADER_BYTES} bytes of headers; send less"
        # RFC 9112, 6.3: read in two ways, one request hides another.
        if len(lengths) + encodings > 1 or any(not length.isdigit() for length in lengths):
            return "the body's length is said twice or is no number; send one Content-Length"
        kept.append((b"x-request-id", _request_id(ids)))
        scope["headers"] = kept
        return None


def _is_trace(value: bytes) -> bool:
    """Serve decodes these and fails at what is no text."""
    return len(value) <= MAX_TRACE_BYTES and value.isascii()


def _request_id(given: list[bytes]) -> bytes:
    """The client's own where it sent one that is short and plain, else a new one."""
    if len(given) == 1 and REQUEST_ID.fullmatch(given[0]):
        return given[0]
    return _new_id().encode()


def _new_id() -> str:
    return os.urandom(16).hex()  # a UUID takes four times as long


async def _refuse(send: Send, detail: str) -> None:
    """A problem document, as serving.http.problems makes them, without loading that."""
    request_id = _new_id()
    document = {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": detail,
        "code": "malformed_request",
        "request_id": request_id,
    }
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # where the next request begins is not sure
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
