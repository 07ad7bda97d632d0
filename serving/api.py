"""The HTTP interface over one service.

POST /v1/predict   images in, calibrated probabilities and a decision out
GET  /v1/model     what is served
GET  /healthz      the process lives
GET  /readyz       it can answer
GET  /openapi.json the description of all this
"""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse

from ensemble.bundle import Bundle
from ensemble.decision.points import OperatingPoint
from search.errors import BundleError
from serving.images import TYPES, read_images
from serving.problems import ProblemError, add_handlers, problem_responses, request_id
from serving.schemas import NOTICE, Health, ModelAnswer, PredictAnswer, describe
from serving.service import Service

BINARY = {"type": "string", "format": "binary"}
IMAGE_PARTS = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "array", "items": BINARY, "minItems": 1}},
}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": IMAGE_PARTS},
            **{kind: {"schema": BINARY} for kind in TYPES},
        },
    }
}
PAGE = f"""<!doctype html><html lang="en"><title>Consilium</title><h1>Consilium</h1>
<p>POST images to <code>/v1/predict</code>; see <a href="openapi.json">openapi.json</a>.</p>
<p>{NOTICE}</p></html>
"""

router = APIRouter()


def build_api(service: Service) -> FastAPI:
    """The app that answers for a service."""
    app = FastAPI(
        title="Consilium",
        version=version("consilium"),
        description=NOTICE,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(router)
    add_handlers(app)
    return app


def the_service(request: Request) -> Service:
    """The service behind the app."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(the_service)]
PointName = Annotated[
    str | None, Query(max_length=100, description="name; the bundle's first where absent")
]


@router.post(
    "/v1/predict",
    openapi_extra=IMAGE_BODY,
    responses=problem_responses(400, 413, 415, 422, 500),
)
async def predict(
    request: Request, service: Served, operating_point: PointName = None
) -> PredictAnswer:
    """Calibrated probabilities of one or several images."""
    point = find_point(service.bundle, operating_point)
    files = await read_images(request, service.config)
    return PredictAnswer(
        predictions=await service.predict(files, point),
        bundle=service.identity,
        request_id=request_id(request),
    )


@router.get("/v1/model")
async def model(service: Served) -> ModelAnswer:
    """The served bundle: classes, members, calibrator, operating points."""
    return describe(service.bundle.manifest)


@router.get("/healthz")
async def live() -> Health:
    """Whether the process lives."""
    return Health(status="live")


@router.get("/readyz", responses=problem_responses(503))
async def ready(service: Served) -> Health:
    """Whether the bundle is loaded, checked and warm."""
    if not service.ready:
        raise ProblemError(503, "not_ready", "the service is starting or stopping; try again")
    return Health(status="ready")


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """Where to go from here."""
    return HTMLResponse(PAGE)


def find_point(bundle: Bundle, name: str | None) -> OperatingPoint | None:
    """The operating point that a request names, or the default.

    Raises:
        ProblemError: 422, naming those there are.
    """
    try:
        return bundle.operating_point(name)
    except BundleError as error:
        raise ProblemError(422, "unknown_operating_point", str(error)) from error
