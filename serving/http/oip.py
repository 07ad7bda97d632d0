"""Open Inference Protocol v2 over HTTP, which KServe and its clients speak: router for /v2.

Images go in as one BYTES tensor of base64 text; nothing binary follows the JSON.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from importlib.metadata import version as version_of
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Path, Request
from starlette.concurrency import run_in_threadpool

from ensemble.manifest import Manifest
from serving.config import ServingConfig
from serving.http.multipart import too_large
from serving.http.problems import NOTES, problem_responses, request_id
from serving.http.tensors import (
    REQUEST_BODY,
    InferAnswer,
    Parameters,
    Tensor,
    as_tensors,
    describe_outputs,
    no_binary,
    parse_request,
)
from serving.problems import ProblemError
from serving.schemas import Answer, PredictAnswer
from serving.scoring.options import Options

PLATFORM = "consilium_onnx"
JSON_TYPES = ("", "application/json")  # KServe's own client sends none


class Served(Protocol):
    """What this file asks of the service."""

    @property
    def config(self) -> ServingConfig: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def ready(self) -> bool: ...
    async def predict(self, files: list[bytes], options: Options) -> PredictAnswer: ...


class ServerHealth(Answer):
    """GET /v2/health/…: the protocol's text says `live` for both, its clients read `ready`."""

    live: bool
    ready: bool


class ModelReady(Answer):
    """GET …/ready."""

    name: str
    ready: bool


class ServerMetadata(Answer):
    """GET /v2."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(Answer):
    """GET /v2/models/…."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


async def _service(request: Request) -> Served:
    service: Served = request.app.state.service
    return service


AnyService = Annotated[Served, Depends(_service)]
Name = Annotated[str, Path(min_length=1, max_length=100, description="the bundle's name")]
VersionName = Annotated[str, Path(min_length=1, max_length=100, description="the bundle's version")]


async def _named(service: AnyService, name: Name) -> Served:
    if name != service.manifest.name:
        raise _unknown(f"model {name!r}; {service.manifest.name!r} is served")
    return service


async def _versioned(service: Annotated[Served, Depends(_named)], version: VersionName) -> Served:
    if version != service.manifest.version:
        served = service.manifest.version
        raise _unknown(f"version {version!r} of {service.manifest.name!r}; {served!r} is served")
    return service


Named = Annotated[Served, Depends(_named)]
Versioned = Annotated[Served, Depends(_versioned)]
ALWAYS = (400, 401, 403, 408, 429, 500, 503)  # of whatever stands before the handlers, too
FOUND = problem_responses(*ALWAYS, 404, 422)
ANSWERED = problem_responses(*ALWAYS, 404, 413, 415, 422)

router = APIRouter(tags=["Open Inference Protocol v2"])


@router.get("/v2/", include_in_schema=False)
@router.get("/v2", responses=problem_responses(*ALWAYS))
async def server() -> ServerMetadata:
    """What this server is."""
    return ServerMetadata(name="consilium", version=version_of("consilium"), extensions=[])


@router.get("/v2/health/live", responses=problem_responses(*ALWAYS))
async def live(service: AnyService) -> ServerHealth:
    """Whether the process lives."""
    return ServerHealth(live=True, ready=service.ready)


@router.get("/v2/health/ready", responses=problem_responses(*ALWAYS))
async def ready(service: AnyService) -> ServerHealth:
    """Whether it can answer; 503 where not."""
    _check_ready(service)
    return ServerHealth(live=True, ready=True)


@router.get("/v2/models/{name}", responses=FOUND)
async def model(service: Named) -> ModelMetadata:
    """The tensors that the served bundle takes and gives."""
    return describe_model(service.manifest)


@router.get("/v2/models/{name}/versions/{version}", responses=FOUND)
async def model_version(service: Versioned) -> ModelMetadata:
    """The same, by version."""
    return describe_model(service.manifest)


@router.get("/v2/models/{name}/ready", responses=FOUND)
async def model_ready(service: Named) -> ModelReady:
    """Whether the served bundle can answer; 503 where not."""
    _check_ready(service)
    return ModelReady(name=service.manifest.name, ready=True)


@router.get("/v2/models/{name}/versions/{version}/ready", responses=FOUND)
async def model_version_ready(service: Versioned) -> ModelReady:
    """The same, by version."""
    return await model_ready(service)


@router.post(
    "/v2/models/{name}/infer",
    responses=ANSWERED,
    response_model_exclude_none=True,
    openapi_extra=REQUEST_BODY,
)
async def infer(request: Request, service: Named) -> InferAnswer:
    """Calibrated probabilities and decisions."""
    text = await _read(request, service.config.max_body_bytes * 4 // 3)
    # Parsing and base64 of a large body take tenths of a second; the event loop has other clients.
    asked, files = await run_in_threadpool(parse_request, text, service.config)
    given = asked.parameters or Parameters()
    options = Options(
        operating_point=given.operating_point,
        request_id=request_id(request),
        key=request.scope.get(NOTES, {}).get("key"),
    )
    answer = await service.predict(files, options)
    return as_tensors(answer, asked)


@router.post(
    "/v2/models/{name}/versions/{version}/infer",
    responses=ANSWERED,
    response_model_exclude_none=True,
    openapi_extra=REQUEST_BODY,
)
async def infer_version(request: Request, service: Versioned) -> InferAnswer:
    """The same, by version."""
    return await infer(request, service)


def describe_model(manifest: Manifest) -> ModelMetadata:
    """A bundle in the protocol's words."""
    return ModelMetadata(
        name=manifest.name,
        versions=[manifest.version],
        platform=PLATFORM,
        inputs=[Tensor(name="image", datatype="BYTES", shape=[-1])],
        outputs=describe_outputs(len(manifest.classes)),
    )


async def _read(request: Request, limit: int) -> bytearray:
    if "inference-header-content-length" in request.headers:
        raise no_binary()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in JSON_TYPES:
        raise ProblemError(
            415, "unsupported_type", f"a body of type {kind[:100]!r}; send application/json"
        )
    text = bytearray()
    async for chunk in request.stream():
        if len(text) + len(chunk) > limit:
            raise too_large("the body", limit)
        text += chunk
    return text


def _check_ready(service: Served) -> None:
    if not service.ready:
        raise ProblemError(503, "not_ready", "the service is starting or stopping; try again")


def _unknown(what: str) -> ProblemError:
    return ProblemError(404, "unknown_model", f"no {what}")


def add_examples(document: dict[str, Any], manifest: Manifest) -> None:
    """Name the served bundle in the document's paths, so that its examples work."""
    names = {"name": manifest.name, "version": manifest.version}
    for path, operations in document["paths"].items():
        for operation in operations.values() if path.startswith("/v2/models/") else ():
            for parameter in operation.get("parameters", ()):
                parameter["example"] = names[parameter["name"]]
