"""Errors over HTTP: RFC 9457 problem documents with a stable `code`, never a traceback.

Codes: no_image, malformed_body, too_large, too_many_images, too_many_pixels, unsupported_type,
damaged_image, unknown_operating_point, invalid_parameter, not_found, method_not_allowed,
not_ready, http_error, internal. Ray Serve itself answers 408, 429 and 503 in plain text.
"""

import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from serving.schemas import Problem

MEDIA_TYPE = "application/problem+json"
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ProblemError(Exception):
    """A request that cannot be answered: HTTP status, stable code, one line for its sender."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


def add_handlers(app: FastAPI) -> None:
    """Let the app answer every error as a problem document."""
    app.add_exception_handler(ProblemError, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(Exception, _answer)


def request_id(request: Request) -> str:
    """The request's X-Request-ID, or a new one where it is absent, long or strange."""
    given: str = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


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
        problem = ProblemError(error.status_code, code, detail)
        return _document(request, problem, headers=error.headers)
    # Starlette raises the error again after this answer, so that the server logs it.
    return _document(
        request, ProblemError(500, "internal", "the service failed; its log tells more")
    )


def _document(
    request: Request, error: ProblemError, *, headers: Mapping[str, str] | None = None
) -> Response:
    problem = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id(request),
    )
    return JSONResponse(problem.model_dump(), error.status, headers, MEDIA_TYPE)
