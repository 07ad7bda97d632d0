"""The Open Inference Protocol's tensors: images out of a request, an answer into outputs.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.config import ServingConfig
from serving.http.images import check_type
from serving.http.inlined import inlined
from serving.http.multipart import too_large
from serving.problems import ProblemError
from serving.schemas import Answer, PredictAnswer

# Base64 holds none of these, so that an honest body has few of them however large it is; counted
# before parsing, because 85 MB of "[[],[],…" would come to gigabytes of Python objects.
MARKS = (b",", b":", b"[", b"{")
MAX_MARKS = 10_000
GREY_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mM8Ma2JARtgYsABBqcEAHqdAfC54R7JAAAAAElF"
    "TkSuQmCC"
)
EXAMPLE = {
    "id": "42",
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [GREY_PNG]}],
    "outputs": [{"name": "probabilities"}, {"name": "decision"}],
}

OutputName = Literal[
    "probabilities", "classes", "decision", "novel", "spread", "entropy", "warnings"
]
NOVEL = {None: "unknown", False: "no", True: "yes"}


class Asked(BaseModel):
    """Base of what a client sends; parts of the protocol that say nothing here are let pass."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Parameters(Asked):
    """Of a request: a misspelt operating point must not pass unseen."""

    model_config = ConfigDict(extra="forbid")

    operating_point: str | None = Field(None, max_length=100, description="the first if absent")
    binary_data_output: bool | None = Field(None, description="the answer is JSON all the same")


class ImageTensor(Asked):
    """The images."""

    name: Literal["image"]
    shape: list[int] = Field(min_length=1, max_length=2, description="[n], or [n, 1]")
    datatype: Literal["BYTES"]
    parameters: dict[str, Any] | None = None
    data: list[
        Annotated[str, Field(json_schema_extra={"format": "byte", "contentEncoding": "base64"})]
    ] = Field(description="JPEG, PNG or WEBP files in base64", json_schema_extra={"minItems": 1})


class WantedOutput(Asked):
    """One of the outputs, by name."""

    name: OutputName


class InferRequest(Asked):
    """POST …/infer."""

    id: str | None = Field(None, max_length=128, description="comes back in the answer")
    parameters: Parameters | None = None
    inputs: list[ImageTensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = Field(None, max_length=32, description="all if absent")


# For OpenAPI: the body is read and counted by hand.
REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": inlined(InferRequest.model_json_schema()),
                "example": EXAMPLE,
            }
        },
    }
}


class Tensor(Answer):
    """What a tensor is like; -1 is the number of images."""

    name: str
    datatype: Literal["BYTES", "FP64"]
    shape: list[int]


class OutputTensor(Tensor):
    """A tensor and its values, row by row."""

    data: list[float | str]


class InferAnswer(Answer):
    """What POST …/infer answers."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="the request's, if it had one")
    parameters: dict[str, str | float | bool]
    outputs: list[OutputTensor]


def describe_outputs(n_classes: int, n_images: int = -1) -> list[Tensor]:
    """All outputs; decision is none where the bundle makes none, novel unknown where not told."""
    return [
        Tensor(name="probabilities", datatype="FP64", shape=[n_images, n_classes]),
        Tensor(name="classes", datatype="BYTES", shape=[n_classes]),
        Tensor(name="decision", datatype="BYTES", shape=[n_images]),
        Tensor(name="novel", datatype="BYTES", shape=[n_images]),
        Tensor(name="spread", datatype="FP64", shape=[n_images]),
        Tensor(name="entropy", datatype="FP64", shape=[n_images]),
        Tensor(name="warnings", datatype="BYTES", shape=[n_images]),
    ]


def parse_request(
    text: bytes | bytearray, config: ServingConfig
) -> tuple[InferRequest, list[bytes]]:
    """What is asked, and the image files.

    Raises:
        ProblemError: 400 for no JSON or the binary extension, 413 for a limit, 415 for another
            type of image, 422 for a value that the protocol or this service does not know.
    """
    if sum(map(text.count, MARKS)) > MAX_MARKS:
        raise ProblemError(413, "too_large", f"more than {MAX_MARKS} values; send fewer")
    try:
        asked = InferRequest.model_validate_json(text)
    except ValidationError as error:
        raise _invalid(error) from None  # its own text quotes the request
    [tensor] = asked.inputs
    if "binary_data_size" in (tensor.parameters or {}):
        raise no_binary()
    n = len(tensor.data)
    if tensor.shape not in ([n], [n, 1]):
        raise ProblemError(422, "invalid_parameter", f"shape: not [{n}], as data has {n} values")
    if n > config.max_images:
        raise ProblemError(
            413, "too_many_images", f"more than {config.max_images} images; send several requests"
        )
    if not any(tensor.data):
        raise ProblemError(422, "no_image", "no image in data; send files in base64")
    limit = config.max_image_bytes
    return asked, [_decode(value, index, limit) for index, value in enumerate(tensor.data, 1)]


def as_tensors(answer: PredictAnswer, asked: InferRequest) -> InferAnswer:
    """An answer in the protocol's words; the outputs asked for, in the order asked."""
    images = answer.predictions
    classes = list(images[0].probabilities)
    values: dict[str, Sequence[float | str]] = {
        "probabilities": [image.probabilities[name] for image in images for name in classes],
        "classes": classes,
        "decision": [image.decision or "none" for image in images],
        "novel": [NOVEL[image.novel] for image in images],
        "spread": [_number(image.uncertainty.spread) for image in images],
        "entropy": [image.uncertainty.entropy for image in images],
        "warnings": [" ".join(warning.code for warning in image.warnings) for image in images],
    }
    tensors = {
        tensor.name: OutputTensor(**tensor.model_dump(), data=list(values[tensor.name]))
        for tensor in describe_outputs(len(classes), len(images))
    }
    wanted: Iterable[str] = [output.name for output in asked.outputs or []] or tensors
    return InferAnswer(
        model_name=answer.bundle.name,
        model_version=answer.bundle.version,
        id=asked.id,
        parameters=_said_of_all(answer),
        outputs=[tensors[name] for name in wanted],
    )


def _said_of_all(answer: PredictAnswer) -> dict[str, str | float | bool]:
    said: dict[str, str | float | bool] = {
        "bundle_digest": answer.bundle.digest,
        "request_id": answer.request_id,
        "notice": answer.notice,
    }
    if answer.degraded is not None:
        said["degraded"] = answer.degraded
    point = answer.predictions[0].operating_point
    if point is not None:
        said |= {
            "operating_point": point.name,
            "threshold": point.threshold,
            "certified": point.certified,
        }
    return said


def _decode(value: str, index: int, limit: int) -> bytes:
    """One image file out of base64, without line breaks."""
    if len(value) > (limit + 2) // 3 * 4:
        raise too_large(f"image {index}", limit)
    try:
        file = b64decode(value, validate=True)
    except ValueError:
        raise ProblemError(
            422, "invalid_base64", f"image {index}: no base64 without line breaks"
        ) from None
    if len(file) > limit:
        raise too_large(f"image {index}", limit)
    check_type(file, index)
    return file


def no_binary() -> ProblemError:
    return ProblemError(
        400,
        "binary_extension_unsupported",
        "the binary tensor extension is not offered; send base64 text in data",
    )


def _invalid(error: ValidationError) -> ProblemError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return ProblemError(400, "malformed_body", f"no JSON document ({first['msg']})")
    where = ".".join(map(str, first["loc"]))[:100] or "the request"
    return ProblemError(422, "invalid_parameter", f"{where}: {first['msg']}")


def _number(spread: float | None) -> float:
    """FP64 knows no null: -1 where one member alone was asked, so that nothing spreads."""
    return -1.0 if spread is None else spread
