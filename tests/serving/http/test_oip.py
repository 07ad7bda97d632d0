import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, cast, get_args

import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from ensemble.manifest import Manifest
from serving.config import ServingConfig
from serving.http.oip import add_examples, router
from serving.http.problems import NOTES, add_handlers
from serving.http.tensors import (
    EXAMPLE,
    MAX_MARKS,
    InferAnswer,
    OutputName,
    describe_outputs,
    parse_request,
)
from serving.problems import ProblemError
from serving.schemas import (
    NOTICE,
    BundleIdentity,
    ImagePrediction,
    ImageWarning,
    PredictAnswer,
    Uncertainty,
    UsedPoint,
)
from serving.scoring.options import Options
from tests.tiny import tiny_bytes

CLASSES = ["benign", "malignant", "other"]
PATHS = ("/v2/models/tiny", "/v2/models/tiny/versions/1")
INFER = "/v2/models/tiny/infer"
LIMITS = ServingConfig(max_image_bytes=20_000, max_body_bytes=50_000, max_images=3)
TOLD: dict[str, Any] = {"name": "tiny", "version": "1", "classes": CLASSES}
MANIFEST = Manifest.model_construct(**TOLD)
POINT = UsedPoint(name="balanced", threshold=0.5, certified=False, reason="a test's")


class FakeService:
    """Says of each image what its bytes' hash says, so that their order shows."""

    def __init__(self) -> None:
        self.config, self.manifest, self.ready = LIMITS, MANIFEST, True
        self.options = Options()

    async def predict(self, files: list[bytes], options: Options) -> PredictAnswer:
        self.options = options
        if options.operating_point not in (None, "balanced"):
            raise ProblemError(422, "unknown_operating_point", "there is balanced")
        return PredictAnswer(
            predictions=[said_of(file) for file in files],
            bundle=BundleIdentity(name="tiny", version="1", digest="d" * 64),
            request_id=options.request_id,
        )


def said_of(file: bytes) -> ImagePrediction:
    shares = [value + 1 for value in hashlib.sha256(file).digest()[:3]]
    return ImagePrediction(
        probabilities=dict(zip(CLASSES, [share / sum(shares) for share in shares], strict=True)),
        decision="refer",
        operating_point=POINT,
        uncertainty=Uncertainty(spread=0.125, entropy=0.5),
        novel=True,
        warnings=[
            ImageWarning(code="blurred", detail=""),
            ImageWarning(code="low_resolution", detail=""),
        ],
        asked=2,
        sha256=hashlib.sha256(file).hexdigest(),
        width=40,
        height=32,
    )


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(router)
    add_handlers(app)
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture
def http(client: TestClient, service: FakeService) -> TestClient:
    cast(FastAPI, client.app).state.service = service
    return client


def asking(*files: bytes, **changes: Any) -> dict[str, Any]:
    """A request for these images; changes are of the tensor."""
    data = [b64encode(file).decode() for file in files]
    tensor = {"name": "image", "shape": [len(files)], "datatype": "BYTES", "data": data}
    return {"inputs": [tensor | changes]}


def problem(http: TestClient, status: int, code: str, **request: Any) -> str:
    """The detail of a refused request, checked for its form."""
    response = http.post(request.pop("path", INFER), **request)
    found = response.json()
    assert (response.status_code, found["code"], found["status"]) == (status, code, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert found["error"] == found["detail"]  # the protocol's own word for it
    detail: str = found["detail"]
    assert len(detail) < 400
    assert "\n" not in detail
    return detail


def test_the_server_tells_what_it_is(http: TestClient) -> None:
    for path in ("/v2", "/v2/"):
        found = http.get(path).json()
        assert (found["name"], found["extensions"]) == ("consilium", [])
    assert http.get("/v2/health/live").json() == {"live": True, "ready": True}
    assert http.get("/v2/health/ready").json() == {"live": True, "ready": True}


def test_a_service_that_cannot_answer_is_live_and_not_ready(
    http: TestClient, service: FakeService
) -> None:
    service.ready = False
    assert http.get("/v2/health/live").json() == {"live": True, "ready": False}
    for path in ("/v2/health/ready", *(f"{path}/ready" for path in PATHS)):
        response = http.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")


@pytest.mark.parametrize("path", PATHS)
def test_the_model_is_described_with_and_without_its_version(http: TestClient, path: str) -> None:
    found = http.get(path).json()
    assert found.pop("outputs")[:3] == [
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]},
        {"name": "classes", "datatype": "BYTES", "shape": [3]},
        {"name": "decision", "datatype": "BYTES", "shape": [-1]},
    ]
    assert found == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "consilium_onnx",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
    }
    assert http.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}


@pytest.mark.parametrize("path", PATHS)
def test_images_are_answered_row_by_row_in_the_order_sent(http: TestClient, path: str) -> None:
    files = [tiny_bytes(1), tiny_bytes(2, kind="JPEG")]
    response = http.post(f"{path}/infer", json={"id": "42"} | asking(*files))
    assert response.status_code == 200
    found = response.json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("tiny", "1", "42")
    outputs = {output["name"]: output for output in found["outputs"]}
    expected = [p for file in files for p in said_of(file).probabilities.values()]
    assert outputs["probabilities"] == {
        "name": "probabilities",
        "datatype": "FP64",
        "shape": [2, 3],
        "data": expected,
    }
    assert {name: output["data"] for name, output in outputs.items() if len(name) < 13} == {
        "classes": CLASSES,
        "decision": ["refer", "refer"],
        "novel": ["yes", "yes"],
        "spread": [0.125, 0.125],
        "entropy": [0.5, 0.5],
        "warnings": ["blurred low_resolution"] * 2,
    }
    assert all(len(o["data"]) == o["shape"][0] for o in found["outputs"][1:])


def test_what_holds_for_all_images_stands_beside_them(
    http: TestClient, service: FakeService
) -> None:
    asked = asking(tiny_bytes()) | {"parameters": {"operating_point": "balanced"}}
    found = http.post(INFER, json=asked, headers={"x-request-id": "r-1"}).json()
    assert service.options == Options(operating_point="balanced", request_id="r-1")
    assert "id" not in found
    assert found["parameters"] == {
        "bundle_digest": "d" * 64,
        "request_id": "r-1",
        "notice": NOTICE,
        "operating_point": "balanced",
        "threshold": 0.5,
        "certified": False,
    }


def test_the_key_that_the_front_found_is_passed_on(http: TestClient, service: FakeService) -> None:
    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        scope[NOTES] = {"key": "clinic", "request_id": "r-2"}
        await http.app(scope, receive, send)

    assert TestClient(front).post(INFER, json=asking(tiny_bytes())).status_code == 200
    assert service.options == Options(request_id="r-2", key="clinic")


def test_outputs_come_as_they_are_asked_for(http: TestClient) -> None:
    wanted = [{"name": "decision"}, {"name": "classes", "parameters": {"binary_data": True}}]
    found = http.post(INFER, json=asking(tiny_bytes()) | {"outputs": wanted}).json()
    assert [output["name"] for output in found["outputs"]] == ["decision", "classes"]
    everything = http.post(INFER, json=asking(tiny_bytes()) | {"outputs": []}).json()
    assert len(everything["outputs"]) == 7


def test_what_other_clients_add_does_no_harm(http: TestClient) -> None:
    asked = asking(tiny_bytes(), shape=[1, 1], parameters={"content_type": "base64"})
    asked |= {"model_name": "tiny", "parameters": {"binary_data_output": True}}
    bare = json.dumps(asked).encode()  # KServe's client sends no content type
    assert http.post(INFER, content=bare).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v2/models/other", "/v2/models/tiny/versions/2", "/v2/models/other/versions/1"]
)
def test_another_model_or_version_is_not_found(http: TestClient, path: str) -> None:
    for end in ("", "/ready"):
        response = http.get(path + end)
        assert (response.status_code, response.json()["code"]) == (404, "unknown_model")
    detail = problem(http, 404, "unknown_model", path=f"{path}/infer", content=b"")
    assert "is served" in detail


def test_the_binary_extension_is_refused(http: TestClient) -> None:
    header = {"inference-header-content-length": "10"}
    problem(http, 400, "binary_extension_unsupported", content=b"x", headers=header)
    told = asking(tiny_bytes(), parameters={"binary_data_size": 3}, data=["x"])
    problem(http, 400, "binary_extension_unsupported", json=told)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b'{"inputs": [NaN]', b"[" * 900, b'{"a":' * 900, b'{"id": "\\ud800"}'],
)
def test_what_is_no_json_is_malformed(http: TestClient, text: bytes) -> None:
    problem(http, 400, "malformed_body", content=text)


def test_another_type_of_body_is_refused(http: TestClient) -> None:
    headers = {"content-type": "text/plain"}
    detail = problem(http, 415, "unsupported_type", content=b"{}", headers=headers)
    assert "application/json" in detail


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ([], "the request: "),
        ({}, "inputs: "),
        ({"inputs": []}, "inputs: "),
        ({"inputs": asking(b"x")["inputs"] * 2}, "inputs: "),
        (asking(b"x", name="pixels"), "inputs.0.name: "),
        (asking(b"x", datatype="UINT8"), "inputs.0.datatype: "),
        (asking(b"x", data=[[["x"]]]), "inputs.0.data.0: "),
        (asking(b"x", data=None), "inputs.0.data: "),
        (asking(b"x", shape=["1"]), "inputs.0.shape.0: "),
        (asking(b"x", shape=[2]), "shape: "),
        (asking(b"x", shape=[1, 2]), "shape: "),
        (asking(b"x") | {"outputs": [{"name": "logits"}]}, "outputs.0.name: "),
        (asking(b"x") | {"parameters": {"operating_pint": "x"}}, "parameters.operating_pint: "),
        (asking(b"x") | {"parameters": {"operating_point": 3}}, "parameters.operating_point: "),
        (asking(b"x") | {"parameters": {"k" * 5000: 3}}, "parameters.kkk"),
        (asking(b"x") | {"id": "x" * 129}, "id: "),
    ],
)
def test_a_value_that_is_not_known_is_named(http: TestClient, asked: Any, where: str) -> None:
    assert problem(http, 422, "invalid_parameter", json=asked).startswith(where)


def test_an_operating_point_that_is_not_there_is_the_services_to_refuse(http: TestClient) -> None:
    asked = asking(tiny_bytes()) | {"parameters": {"operating_point": "x"}}
    problem(http, 422, "unknown_operating_point", json=asked)


@pytest.mark.parametrize("value", ["_w==", "iVBO", "a\nbc", "abc", "äöü=", "data:image/png,x"])
def test_what_is_no_image_in_base64_is_refused(http: TestClient, value: str) -> None:
    asked = asking(tiny_bytes(), b"x")
    asked["inputs"][0]["data"][1] = value
    status, code = (415, "unsupported_type") if value == "iVBO" else (422, "invalid_base64")
    assert "image 2" in problem(http, status, code, json=asked)


def test_base64_of_an_image_with_something_in_between_is_refused(http: TestClient) -> None:
    text = b64encode(tiny_bytes()).decode()
    for between in ("\n", " ", "-", "%0A"):
        asked = asking(b"", data=[f"{text[:40]}{between}{text[40:]}"])
        problem(http, 422, "invalid_base64", json=asked)


def test_no_image_at_all_is_refused(http: TestClient) -> None:
    for files in ([], [b""]):
        problem(http, 422, "no_image", json=asking(*files))


def padded(size: int) -> bytes:
    """A file of this many bytes that begins as a PNG does."""
    return tiny_bytes().ljust(size, b"\0")


@pytest.mark.parametrize("size", [20_000, 19_999, 19_998])
def test_an_image_of_the_largest_size_is_taken(http: TestClient, size: int) -> None:
    assert http.post(INFER, json=asking(padded(size))).status_code == 200


@pytest.mark.parametrize("size", [20_001, 20_002, 30_000])
def test_a_larger_image_is_too_large(http: TestClient, size: int) -> None:
    detail = problem(http, 413, "too_large", json=asking(tiny_bytes(), padded(size)))
    assert "image 2 has more than 20000 bytes" in detail


def test_more_images_than_allowed_are_refused(http: TestClient) -> None:
    assert http.post(INFER, json=asking(*[tiny_bytes()] * 3)).status_code == 200
    problem(http, 413, "too_many_images", json=asking(*[tiny_bytes()] * 4))


def test_a_body_is_counted_while_it_streams(http: TestClient) -> None:
    sent = []

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            sent.append(1)
            yield b" " * 1000

    detail = problem(http, 413, "too_large", content=chunks())
    assert "the body has more than 66666 bytes" in detail
    whole = json.dumps(asking(tiny_bytes())).encode()
    assert http.post(INFER, content=whole.ljust(66_666)).status_code == 200
    problem(http, 413, "too_large", content=whole.ljust(66_667))


@pytest.mark.parametrize("item", [b"[],", b"{},", b'"",', b"0,", b"[", b'{"":'])
def test_many_small_values_are_refused_before_they_are_parsed(item: bytes) -> None:
    with pytest.raises(ProblemError, match=rf"more than {MAX_MARKS} values") as caught:
        parse_request(b'{"inputs":[' + item * (MAX_MARKS + 1), LIMITS)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


NAMES = st.sampled_from(["id", "inputs", "outputs", "name", "shape", "datatype", "data"])
LEAVES = st.none() | st.booleans() | st.integers() | st.sampled_from(["image", "BYTES", "iVBO", ""])


@given(
    st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)),
    st.dictionaries(NAMES, LEAVES | st.lists(LEAVES)),
)
@settings(max_examples=50, deadline=None)
def test_any_json_is_refused_by_a_documented_code(document: Any, changes: Any) -> None:
    for asked in (document, asking(b"x", **changes)):
        with pytest.raises(ProblemError, match=r".") as caught:
            parse_request(json.dumps(asked).encode(), LIMITS)
        assert caught.value.status in (413, 415, 422)


def test_the_document_is_valid_and_its_example_works(
    http: TestClient, service: FakeService
) -> None:
    document = http.get("/openapi.json").json()
    add_examples(document, MANIFEST)
    OpenAPI.model_validate(document)
    infer = document["paths"]["/v2/models/{name}/versions/{version}/infer"]["post"]
    assert sorted(p["example"] for p in infer["parameters"]) == ["1", "tiny"]
    assert "$ref" not in json.dumps(infer["requestBody"])
    example = infer["requestBody"]["content"]["application/json"]["example"]
    assert example == EXAMPLE
    answer = InferAnswer.model_validate(http.post(INFER, json=example).json())
    assert [output.name for output in answer.outputs] == ["probabilities", "decision"]


def test_every_parameter_has_bounds(http: TestClient) -> None:
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                assert parameter["schema"]["maxLength"] == 100, path


def test_the_outputs_that_can_be_asked_for_are_those_there_are() -> None:
    assert get_args(OutputName) == tuple(tensor.name for tensor in describe_outputs(2))
