"""Where each request arrives: who asks, may they, how long it took; then the path it asks for."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from serving.http.body import Body, ClientGoneError, Room
from serving.http.keys import KeyRing
from serving.http.keys import Scope as KeyScope
from serving.http.predict import Caller, explain, predict
from serving.http.problems import INTERNAL, NOTES, document, safe_id
from serving.http.rates import Rates
from serving.monitor.access import Access, AccessLog
from serving.problems import ProblemError
from serving.scoring.service import Service

THIN: dict[str, Callable[[Scope, Body, Service, Caller], Awaitable[bytes]]] = {
    "/v1/predict": predict,
    "/v1/explain": explain,
}
# What anyone may see: the page, whether it lives, and what the interface is.
OPEN = {
    *("/", "/page.css", "/page.js", "/openapi.json", "/healthz", "/readyz"),
    *("/v2", "/v2/", "/v2/health/live", "/v2/health/ready"),
}
JSON_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
SAFE = (b"x-content-type-options", b"nosniff")


@dataclass
class Visit:
    """What is noted about one request."""

    request_id: str
    started: float
    client: str
    key: str | None = None
    status: int = 0
    route: str = "other"
    problem: str | None = None


class Front:
    """The ASGI app that a replica runs: a thin path for images, FastAPI for all else."""

    def __init__(self, service: Service, app: FastAPI, *, keys: KeyRing | None) -> None:
        config = service.config
        self._service = service
        self._app = app
        self._keys = keys
        self._rates = None if config.rate is None or keys is None else Rates(config.rate)
        self._access = AccessLog() if config.access_log else None
        self._room = Room(config.max_held_bytes)
        # Base64 of the Open Inference Protocol takes four bytes for three.
        self._limits = dict.fromkeys(THIN, config.max_body_bytes)
        self._limit = config.max_body_bytes * 4 // 3 + 4096

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            if self._access is not None:  # the lifespan has ended
                self._access.flush()
            return
        scope = _at_root(scope)
        headers = dict(scope["headers"])
        visit = Visit(
            request_id=safe_id(headers.get(b"x-request-id", b"").decode("latin-1")),
            started=time.perf_counter(),
            client=scope["client"][0] if scope.get("client") else "",
        )
        scope[NOTES] = {"request_id": visit.request_id}
        body = Body(
            receive,
            limit=self._limits.get(scope["path"], self._limit),
            seconds=self._service.config.body_timeout_s,
            room=self._room,
        )
        count = 0
        try:
            await self._pass(scope, body, send, visit, headers)
        except ClientGoneError:
            visit.status = 499
        except ProblemError as problem:
            await self._refuse(problem, visit, send)
        finally:
            count = body.count
            body.release()
            self._note(scope, visit, count)

    async def _pass(
        self, scope: Scope, body: Body, send: Send, visit: Visit, headers: dict[bytes, bytes]
    ) -> None:
        path = scope["path"]
        self._admit(path, headers, visit)
        thin = THIN.get(path)
        if thin is None or scope["method"] != "POST":
            scope[NOTES]["key"] = visit.key
            await self._app(scope, body.receive, _noting(send, visit))
            visit.route = getattr(scope.get("route"), "path", "other")
            visit.problem = scope[NOTES].get("problem")
            return
        visit.route = path
        traceparent = headers.get(b"traceparent", b"").decode("latin-1")
        with self._service.watch.tracer.span(
            "request", traceparent=traceparent, route=path
        ) as span:
            caller = Caller(visit.request_id, visit.key, span)
            try:
                content = await thin(scope, body, self._service, caller)
            except (ProblemError, ClientGoneError):
                raise
            except Exception:
                await self._refuse(INTERNAL, visit, send)
                raise
        await _answer(content, visit, send)

    def _admit(self, path: str, headers: dict[bytes, bytes], visit: Visit) -> None:
        """Ask for a key where the path needs one, and hold its owner to the rate.

        Raises:
            ProblemError: 401, 403 or 429.
        """
        if path in OPEN or path.startswith("/examples/"):
            return
        admin = path.startswith("/v1/admin")
        if self._keys is None:
            if admin:  # any page in a browser on this machine could send it
                raise ProblemError(
                    403, "forbidden", "admin calls need a key; name a file of keys to the service"
                )
            return
        scope: KeyScope = "admin" if admin or path == "/metrics" else "predict"
        given = headers.get(b"authorization") or headers.get(b"x-api-key")
        visit.key = self._keys.authorise(given, scope)
        if self._rates is not None:
            self._rates.take(visit.key)

    async def _refuse(self, problem: ProblemError, visit: Visit, send: Send) -> None:
        if visit.status:
            return  # the answer has begun; all that is left is to end it
        visit.status, visit.problem = problem.status, problem.code
        content, headers = document(problem, visit.request_id)
        await _send(send, problem.status, [*headers, SAFE], content)

    def _note(self, scope: Scope, visit: Visit, count: int) -> None:
        seconds = time.perf_counter() - visit.started
        metrics = self._service.watch.metrics
        metrics.answered(visit.route, visit.status, seconds)
        if visit.problem is not None:
            metrics.refused(visit.problem)
        if self._access is not None:
            self._access.write(
                Access(
                    request_id=visit.request_id,
                    key=visit.key,
                    client=visit.client,
                    method=scope["method"],
                    route=visit.route,
                    status=visit.status,
                    bytes_in=count,
                    seconds=seconds,
                )
            )


def _at_root(scope: Scope) -> Scope:
    """The same without the prefix that the service is mounted at.

    Keys are asked for by path: what the routes strip later would open the admin's below a prefix.
    """
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if not root:
        return scope
    inner = path.removeprefix(root) if path.startswith(f"{root}/") else path
    return {**scope, "path": inner, "root_path": ""}


async def _answer(content: bytes, visit: Visit, send: Send) -> None:
    visit.status = 200
    await _send(send, 200, [*JSON_HEADERS, SAFE], content)


async def _send(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes
) -> None:
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": content})


def _noting(send: Send, visit: Visit) -> Send:
    """The same, noting the status and adding what keeps browsers from guessing types."""

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            visit.status = message["status"]
            headers: list[Any] = [*message.get("headers", []), SAFE]
            message = {**message, "headers": headers}
        await send(message)

    return noting
