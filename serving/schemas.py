"""The answers of the HTTP interface."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ensemble.calibration.calibrators import Calibrator
from ensemble.decision.points import Decision, OperatingPoint
from ensemble.manifest import Manifest

NOTICE = "Educational and research use; not a medical device."


class Answer(BaseModel):
    """Base of every answer; a client takes no offence at fields newer than itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class UsedPoint(Answer):
    """The operating point that a decision was made at."""

    name: str
    threshold: float = Field(description="positive where the probability reaches it")
    refer_from: float | None = Field(None, description="referred from here up to the threshold")
    certified: bool
    reason: str


class ImagePrediction(Answer):
    """What the ensemble says about one image."""

    probabilities: dict[str, float] = Field(description="calibrated, by class; they sum to 1")
    decision: Decision | None = Field(
        description="null where the bundle has no positive class or no operating point"
    )
    operating_point: UsedPoint | None
    spread: float = Field(
        description="standard deviation of the members' probabilities of the positive class, "
        "or of the most probable one"
    )
    novel: bool | None = Field(
        None, description="unlike the training images; null where the bundle measured none"
    )
    sha256: str = Field(description="of the image file as received")
    width: int = Field(description="pixels, upright")
    height: int = Field(description="pixels, upright")


class BundleIdentity(Answer):
    """Which bundle answered."""

    name: str
    version: str
    digest: str = Field(description="SHA-256 of its manifest")


class PredictAnswer(Answer):
    """POST /v1/predict: one prediction an image, in the order sent."""

    predictions: list[ImagePrediction]
    bundle: BundleIdentity
    request_id: str
    notice: str = NOTICE


class MemberSummary(Answer):
    """One member of the ensemble."""

    name: str
    backbone: str
    image_size: int = Field(description="pixels of the square that the member sees")
    weight: float


class ModelAnswer(Answer):
    """GET /v1/model: what is served."""

    bundle: BundleIdentity
    created: str
    classes: list[str]
    positive: str | None
    members: list[MemberSummary]
    calibrator: Calibrator
    operating_points: list[OperatingPoint] = Field(description="the first is the default")
    prevalence: dict[str, float] = Field(description="share of each class in the training data")
    notice: str = NOTICE


class Health(Answer):
    """GET /healthz and /readyz."""

    status: Literal["live", "ready"]


class Problem(Answer):
    """An error, as RFC 9457 says; `code` and `request_id` are extensions of ours."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="stable; for programs")
    request_id: str


def identity(manifest: Manifest) -> BundleIdentity:
    """Name, version and digest."""
    return BundleIdentity(name=manifest.name, version=manifest.version, digest=manifest.digest)


def describe(manifest: Manifest) -> ModelAnswer:
    """The manifest's essentials."""
    return ModelAnswer(
        bundle=identity(manifest),
        created=manifest.created,
        classes=manifest.classes,
        positive=manifest.positive,
        members=[
            MemberSummary(
                name=member.name,
                backbone=member.params.backbone,
                image_size=member.preprocessing.size,
                weight=member.weight,
            )
            for member in manifest.members
        ],
        calibrator=manifest.calibrator,
        operating_points=manifest.operating_points,
        prevalence=manifest.prevalence,
    )
