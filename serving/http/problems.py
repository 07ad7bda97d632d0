"""Problems over HTTP: RFC 9457 documents, never a traceback."""

import json
import re
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from serving.problems import ProblemError
from serving.schemas import Problem

NOTES = "consilium"  # in an ASGI scope: what the front and the rest tell each other
MEDIA_TYPE = "application/problem+json"
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


INTERNAL = ProblemError(500, "internal", "the service failed; its log tells more")


def add_handlers(app: FastAPI) -> None:
    """Let the app answer every error as a problem document."""
    app.add_exception_handler(ProblemError, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(Exception, _answer)


def safe_id(given: str) -> str:
    """A request's X-Request-ID, or a new one where it is absent, long or strange."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def request_id(request: Request) -> str:
    """The id that the front gave the request."""
    noted = request.scope.get(NOTES, {}).get("request_id")
    return str(noted) if noted else safe_id(request.headers.get("x-request-id", ""))


def document(
    error: ProblemError, request_id: str, /, **extensions: str
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A problem document and its headers."""
    problem = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
    )
    content = json.dumps(problem.model_dump() | extensions).encode()
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", **error.headers}
    return content, [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of these error answers."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, ProblemError):
        return _document(request, error)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        detail = f"{first['loc'][-1]}: {first['msg']}"
        return _document(request, ProblemError(422, "invalid_parameter", detail))
    if isinstance(error, HTTPException):
        code = HTTP_CODES.get(error.status_code, "http_error")
        detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
        headers = dict(error.headers or {}) | _allowed(request, error.status_code)
        return _document(request, ProblemError(error.status_code, code, detail, headers=headers))
    # Starlette raises the error again after this answer, so that the server logs it.
    return _document(request, INTERNAL)


def _allowed(request: Request, status: int) -> dict[str, str]:
    """All that a path takes, for a 405; Starlette names only what its first route takes."""
    routers: Sequence[APIRouter] = getattr(request.app.state, "routers", ())
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    found = [route.methods for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    if status != 405 or not found:
        return {}
    return {"Allow": ", ".join(sorted(set().union(*(methods or () for methods in found))))}


def _document(request: Request, error: ProblemError) -> Response:
    request.scope.setdefault(NOTES, {})["problem"] = error.code
    # The Open Inference Protocol's own member for errors.
    extensions = {"error": error.detail} if request.url.path.startswith("/v2") else {}
    content, headers = document(error, request_id(request), **extensions)
    answer = Response(content, error.status)
    answer.raw_headers.extend(headers)
    return answer
