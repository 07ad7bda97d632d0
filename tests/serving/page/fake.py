"""A service that answers the page as the schemas say, without a bundle, members or Ray."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from PIL import Image, UnidentifiedImageError
from starlette.responses import JSONResponse, Response

from ensemble.calibration.calibrators import Temperature
from ensemble.decision.points import OperatingPoint
from serving.page.files import CONTENT_SECURITY_POLICY, page_files
from serving.schemas import (
    Answer,
    BundleIdentity,
    Explanation,
    ImagePrediction,
    ImageWarning,
    MemberSummary,
    ModelAnswer,
    PredictAnswer,
    Problem,
    Uncertainty,
    UsedPoint,
    VersionState,
)
from tests.points import a_point
from tests.serving.live import listening
from tests.tiny import tiny_bytes

BUNDLE = BundleIdentity(name="lesions", version="3", digest="a1b2c3d4" * 8)
REQUEST_ID = "5f1c0d2e9b7a4c35"
POINTS = [
    a_point("screening", 0.3, certified=True, reason="all of 72 held-back positives were found"),
    a_point(
        "triage", 0.7, refer_from=0.45, referred=0.18, reason="40 positives prove 0.91 at most"
    ),
]
MEMBERS = {"cnn_0": 0.58, "mobilenet_4": 0.71, "resnet_7": 0.52}


def model_answer(classes: dict[str, float], **changes: Any) -> ModelAnswer:
    """What is served: these classes, the last of them positive."""
    answer = ModelAnswer(
        bundle=BUNDLE,
        versions=[VersionState(name="bundle", role="serving", digest=BUNDLE.digest)],
        degraded=None,
        created="2026-01-01T00:00:00+00:00",
        classes=list(classes),
        positive=list(classes)[-1],
        members=[
            MemberSummary(name=name, backbone=name.split("_")[0], image_size=128, weight=1 / 3)
            for name in MEMBERS
        ],
        calibrator=Temperature(temperature=1.3),
        operating_points=POINTS,
        cascade=False,
        explain=True,
        examples=[f"/v1/examples/{index}.png" for index in range(2)],
        prevalence=dict.fromkeys(classes, 1 / len(classes)),
    )
    return answer.model_copy(update=changes)


class Fake:
    """Calls every image what `probs` says; with a key, answers nobody who does not send it.

    `changes` are made to every prediction, `model` to what is said about the bundle; `heat` is
    the largest value of its maps.
    """

    def __init__(
        self,
        probs: dict[str, float] | None = None,
        *,
        key: str | None = None,
        changes: dict[str, Any] | None = None,
        heat: float = 1,
        **model: Any,
    ) -> None:
        self.probs = probs or {"benign": 0.38, "malignant": 0.62}
        self.model = model_answer(self.probs, **model)
        self.key = key
        self.changes = changes or {}
        self.heat = heat

    def app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        for path in page_files():
            app.add_api_route(path, partial(_page, path), response_class=Response)
        app.add_api_route("/v1/examples/{index}.png", _example, response_class=Response)
        app.add_api_route("/v1/model", self.describe, response_class=Response)
        app.add_api_route("/v1/predict", self.predict, methods=["POST"], response_class=Response)
        app.add_api_route("/v1/explain", self.explain, methods=["POST"], response_class=Response)
        return app

    async def describe(self, request: Request) -> Response:
        return _refused(401, "an API key is needed") if self._shut(request) else _json(self.model)

    async def predict(self, request: Request) -> Response:
        file, image = await _image(request)
        if self._shut(request):
            return _refused(401, "an API key is needed")
        if image is None:
            return _refused(415, "image 1 is none of JPEG, PNG, WebP; send one of these")
        point = next(
            (each for each in POINTS if each.name == request.query_params.get("operating_point")),
            POINTS[0],
        )
        prediction = ImagePrediction(
            probabilities=self.probs,
            at_prevalence=self._shifted(request.query_params.get("prevalence")),
            decision=point.decide(self.probs[self.model.classes[-1]]),
            operating_point=_used(point),
            uncertainty=Uncertainty(spread=0.08, entropy=0.91),
            novel=False,
            asked=len(MEMBERS),
            members={name: self._vote(share) for name, share in MEMBERS.items()},
            sha256=hashlib.sha256(file).hexdigest(),
            width=image.width,
            height=image.height,
        ).model_copy(update=self.changes)
        degraded = self.model.degraded
        return _json(
            PredictAnswer(
                predictions=[prediction], bundle=BUNDLE, degraded=degraded, request_id=REQUEST_ID
            )
        )

    async def explain(self, request: Request) -> Response:
        _, image = await _image(request)
        assert image is not None
        grid = _bump(8, 8) * self.heat
        explanation = Explanation(
            class_name=request.query_params.get("class", self.model.classes[-1]),
            overlay_png=base64.b64encode(_overlay(image.size)).decode(),
            map=grid.tolist(),
            members={name: grid.tolist() for name in MEMBERS},
        )
        answer = {"explanation": explanation.model_dump(), "bundle": BUNDLE.model_dump()}
        return JSONResponse(answer | {"request_id": REQUEST_ID})

    def _shut(self, request: Request) -> bool:
        return self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}"

    def _vote(self, share: float) -> dict[str, float]:
        *others, positive = self.model.classes
        return dict.fromkeys(others, (1 - share) / len(others)) | {positive: share}

    def _shifted(self, prevalence: str | None) -> dict[str, float] | None:
        if prevalence is None:
            return None
        name, share = prevalence.split(":")
        odds = self.probs[name] / (1 - self.probs[name]) * float(share) / (1 - float(share))
        return {name: odds / (1 + odds)}


def blurred() -> dict[str, Any]:
    """What to change in a prediction so that everything is doubtful about it."""
    warning = ImageWarning(code="blurred", detail="the image is blurred; take a sharper one")
    return {"novel": True, "warnings": [warning]}


@contextmanager
def serving(fake: Fake) -> Iterator[str]:
    """The URL of this fake on a free loopback port."""
    with listening(fake.app()) as url:
        yield url


async def _page(path: str) -> Response:
    content, media_type = page_files()[path]
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(content, media_type=media_type, headers=headers)


async def _example(index: int) -> Response:
    return Response(tiny_bytes(index), media_type="image/png")


async def _image(request: Request) -> tuple[bytes, Image.Image | None]:
    file = await request.body()
    try:
        return file, Image.open(BytesIO(file), formats=["JPEG", "PNG", "WEBP"])
    except UnidentifiedImageError:
        return file, None


def _used(point: OperatingPoint) -> UsedPoint:
    return UsedPoint(**point.model_dump(include=set(UsedPoint.model_fields)))


def _json(answer: Answer) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _refused(status: int, detail: str) -> Response:
    problem = Problem(
        title={401: "Unauthorized", 415: "Unsupported Media Type"}[status],
        status=status,
        detail=detail,
        code="refused",
        request_id=REQUEST_ID,
    )
    return JSONResponse(problem.model_dump(), status, media_type="application/problem+json")


def _bump(height: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(height, width) of 0 to 1, highest right of the middle."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.asarray(np.exp(-((x - 0.58) ** 2 + (y - 0.45) ** 2) / 0.05), np.float64)


def _overlay(size: tuple[int, int]) -> bytes:
    """A red RGBA PNG of (width, height), opaque where the map is high."""
    heat = _bump(size[1], size[0])
    pixels = np.zeros((*heat.shape, 4), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 3] = 255, 200 * (1 - heat), 255 * heat
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
