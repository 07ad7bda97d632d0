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


class Uncertainty(Answer):
    """How sure the ensemble is of one image."""

    spread: float | None = Field(
        description="standard deviation of the members' probabilities of the positive class, "
        "or of the most probable one; null where one alone was asked"
    )
    entropy: float = Field(
        ge=0, le=1, description="of the calibrated probabilities, 1 where all classes are equal"
    )


class ImageWarning(Answer):
    """Something about an image that makes its answer worth less."""

    code: Literal["low_resolution", "blurred", "not_a_lesion"]
    detail: str


class Explanation(Answer):
    """Where an image speaks for a class, by Grad-CAM; 0 nowhere to 1 most."""

    class_name: str
    overlay_png: str = Field(
        description="the map as a PNG in base64, to lie over the image; clear where it is 0"
    )
    map: list[list[float]] = Field(description="pooled over the members; rows from the top")
    members: dict[str, list[list[float]]] = Field(description="each member's own")


class ImagePrediction(Answer):
    """What the ensemble says about one image."""

    probabilities: dict[str, float] = Field(description="calibrated, by class; they sum to 1")
    at_prevalence: dict[str, float] | None = Field(
        None, description="the same where classes are as frequent as the request says"
    )
    decision: Decision | None = Field(
        description="null where the bundle has no positive class or no operating point"
    )
    operating_point: UsedPoint | None
    uncertainty: Uncertainty
    novel: bool | None = Field(
        None, description="unlike the training images; null where the bundle measured none"
    )
    warnings: list[ImageWarning] = []
    asked: int = Field(description="members that answered; the first of a cascade may be enough")
    members: dict[str, dict[str, float]] | None = Field(
        None, description="each member's own probabilities, where the request asks for them"
    )
    explanation: Explanation | None = None
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
    degraded: str | None = Field(
        None, description="which members failed; the others answer by thresholds of their own"
    )
    request_id: str
    notice: str = NOTICE


class MemberSummary(Answer):
    """One member of the ensemble."""

    name: str
    backbone: str
    image_size: int = Field(description="pixels of the square that the member sees")
    weight: float


class ExplainAnswer(Answer):
    """POST /v1/explain: where one image speaks for a class."""

    explanation: Explanation
    bundle: BundleIdentity
    request_id: str
    notice: str = NOTICE


Role = Literal["serving", "canary", "shadow", "ready", "refused"]


class VersionState(Answer):
    """One of the bundles that the rollout names, on the replica that answers."""

    name: str
    role: Role = Field(description="ready: loaded and answering nothing")
    digest: str | None = None
    reason: str | None = Field(None, description="why it was refused; the one before serves on")


class ModelAnswer(Answer):
    """GET /v1/model: what is served."""

    bundle: BundleIdentity
    versions: list[VersionState]
    degraded: str | None
    created: str
    classes: list[str]
    positive: str | None
    members: list[MemberSummary]
    calibrator: Calibrator
    operating_points: list[OperatingPoint] = Field(description="the first is the default")
    cascade: bool = Field(description="cheap members may answer alone")
    explain: bool = Field(description="explanations can be asked for")
    examples: list[str] = Field(description="paths of images to try")
    prevalence: dict[str, float] = Field(description="share of each class in the training data")
    notice: str = NOTICE


class Health(Answer):
    """GET /healthz and /readyz."""

    status: Literal["live", "ready"]
    degraded: str | None = None


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


def describe(
    manifest: Manifest,
    *,
    versions: list[VersionState],
    degraded: str | None,
    explain: bool,
    examples: list[str],
) -> ModelAnswer:
    """The manifest's essentials, and how it is served."""
    return ModelAnswer(
        bundle=identity(manifest),
        versions=versions,
        degraded=degraded,
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
        cascade=manifest.cascade is not None,
        explain=explain,
        examples=examples,
        prevalence=manifest.prevalence,
    )
