"""The HTTP interface over one service, as FastAPI describes it.

POST /v1/predict   images in, calibrated probabilities and a decision out
POST /v1/explain   one image in, where it speaks for a class out
GET  /v1/model     what is served
     /v1/admin/…   which bundles are served (admin.py)
     /v2/…         the Open Inference Protocol (oip.py)
GET  /healthz      the process lives
GET  /readyz       it can answer
GET  /             the page, its files and its examples
GET  /metrics      this replica's own counts
GET  /openapi.json the description of all this

Two of them are only described here: predict.py answers, without FastAPI (see front.py).
"""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serving.http import admin, oip
from serving.http.description import DescribedApp
from serving.http.front import Front
from serving.http.images import TYPES
from serving.http.keys import KeyRing
from serving.http.problems import add_handlers, problem_responses
from serving.monitor.metrics import TEXT_TYPE
from serving.page.files import CONTENT_SECURITY_POLICY, page_files
from serving.problems import ProblemError
from serving.schemas import NOTICE, ExplainAnswer, Health, ModelAnswer, PredictAnswer
from serving.scoring.service import Service

BINARY = {"type": "string", "format": "binary"}
IMAGE_PARTS = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "array", "items": BINARY, "minItems": 1}},
}
PARTS = {"schema": IMAGE_PARTS, "encoding": {"image": {"contentType": ", ".join(TYPES)}}}


def build_api(service: Service) -> ASGIApp:
    """The ASGI app that answers for a service.

    Raises:
        ServingError: the file of keys is bad.
    """
    config = service.config
    app = DescribedApp(
        title="Consilium",
        version=version("consilium"),
        description=NOTICE,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
    )
    app.state.service = service
    app.state.routers = (router, admin.router, oip.router)
    for routes in app.state.routers:
        app.include_router(routes)
    add_handlers(app)
    keys = None if config.keys is None else KeyRing(config.keys)
    front: ASGIApp = Front(service, app, keys=keys)
    if config.cors_origins:
        front = CORSMiddleware(
            front,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
        )
    return front


async def the_service(request: Request) -> Service:
    """The service behind the app."""
    service: Service = request.app.state.service
    return service


router = APIRouter()
Served = Annotated[Service, Depends(the_service)]


def _body(*, several: bool) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {"schema": BINARY} for kind in TYPES}
    parts = {"multipart/form-data": PARTS} if several else {}
    return {"required": True, "content": parts | content}


def _query(name: str, description: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema, **more}


NAME = {"type": "string", "minLength": 1, "maxLength": 100}
PREDICT: dict[str, Any] = {
    "requestBody": _body(several=True),
    "parameters": [
        _query("operating_point", "name; the bundle's first where absent", NAME),
        _query(
            "prevalence",
            "CLASS:SHARE, where the probabilities are to hold; repeatable",
            {"type": "array", "items": {"type": "string", "pattern": "^.+:[0-9.eE+-]+$"}},
        ),
        _query("members", "tell each member's own probabilities", {"type": "boolean"}),
        _query("explain", "add a map of where each image speaks for it", {"type": "boolean"}),
        _query("cascade", "false: ask every member, always", {"type": "boolean"}),
    ],
}
EXPLAIN: dict[str, Any] = {
    "requestBody": _body(several=False),
    "parameters": [_query("class", "of the bundle; its positive class where absent", NAME)],
}
REFUSALS = (400, 401, 403, 408, 413, 415, 422, 429, 500, 503)


@router.post("/v1/predict", openapi_extra=PREDICT, responses=problem_responses(*REFUSALS))
async def predict() -> PredictAnswer:
    """Calibrated probabilities of one or several images, and a decision on each."""
    raise ProblemError(500, "internal", "the front answers this path")


@router.post("/v1/explain", openapi_extra=EXPLAIN, responses=problem_responses(*REFUSALS))
async def explain() -> ExplainAnswer:
    """Where one image speaks for a class, by Grad-CAM."""
    raise ProblemError(500, "internal", "the front answers this path")


@router.get("/v1/model", responses=problem_responses(401, 403, 429))
async def model(service: Served) -> ModelAnswer:
    """The served bundle: classes, members, calibrator, operating points; and the others."""
    return service.describe()


@router.get("/healthz")
async def live() -> Health:
    """Whether the process lives."""
    return Health(status="live")


@router.get("/readyz", responses=problem_responses(503))
async def ready(service: Served) -> Health:
    """Whether the bundle is loaded, checked and warm, and enough members are left."""
    if not service.ready:
        raise ProblemError(503, "not_ready", "the service is starting or stopping; try again")
    return Health(status="ready", degraded=service.panel.degraded)


@router.get("/metrics", include_in_schema=False)
async def metrics(service: Served) -> Response:
    """This replica's own counts; Ray's agent on each node has those of all."""
    return Response(service.watch.metrics.text(), media_type=TEXT_TYPE)


@router.get("/examples/{name}", include_in_schema=False)
async def example(service: Served, name: Annotated[str, Path(max_length=100)]) -> Response:
    """One of the bundle's golden images; no patient's."""
    if name not in service.examples():
        raise ProblemError(404, "not_found", f"no example {name[:100]!r}")
    path = service.panel.bundle.folder / "golden" / name
    return Response(path.read_bytes(), media_type="image/png")


async def page(request: Request) -> Response:
    """The page and its files."""
    content, kind = page_files()[request.url.path]
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "no-referrer"}
    return Response(content, media_type=kind, headers=headers)


for path in ("/", "/page.css", "/page.js"):
    router.add_api_route(path, page, include_in_schema=False)
