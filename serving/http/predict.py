"""POST /v1/predict and /v1/explain: the thin path.

These two stand outside of FastAPI, which describes them: on two cores it takes a quarter of the
throughput away from them, mostly by its dependencies.
"""

from dataclasses import dataclass, replace

from starlette.types import Scope

from serving.http.body import Body
from serving.http.images import read_images
from serving.http.parameters import read_class, read_options
from serving.monitor.tracing import Span
from serving.problems import ProblemError
from serving.scoring.options import Options
from serving.scoring.service import Service


@dataclass(frozen=True)
class Caller:
    """Who asks: the request's id and span, and the API key's id where keys are asked for."""

    request_id: str
    key: str | None
    trace: Span


async def predict(scope: Scope, body: Body, service: Service, caller: Caller) -> bytes:
    """The answer to images, as JSON.

    Raises:
        ProblemError: whatever is wrong with the request.
    """
    asked = read_options(scope["query_string"])
    options = replace(asked, request_id=caller.request_id, key=caller.key, trace=caller.trace)
    files = await read_images(_content_type(scope), body.chunks(), service.config)
    answer = await service.predict(files, options)
    return answer.model_dump_json().encode()


async def explain(scope: Scope, body: Body, service: Service, caller: Caller) -> bytes:
    """The explanation of one image, as JSON.

    Raises:
        ProblemError: whatever is wrong with the request.
    """
    class_name = read_class(scope["query_string"])
    files = await read_images(_content_type(scope), body.chunks(), service.config)
    if len(files) > 1:
        raise ProblemError(413, "too_many_images", "one image is explained at a time")
    options = Options(request_id=caller.request_id, key=caller.key)
    return (await service.explain(files[0], class_name, options)).model_dump_json().encode()


def _content_type(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bytes(value).decode("latin-1")
    return ""
