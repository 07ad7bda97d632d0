from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.openapi.models import OpenAPI
from fastapi.testclient import TestClient

from ensemble.bundle import load_bundle
from ensemble.runtime import Runtime
from search.data.transforms import decode
from serving.config import ServingConfig
from serving.http.api import build_api
from serving.schemas import NOTICE, PredictAnswer, Problem
from serving.scoring.service import Service
from tests.serving.conftest import started
from tests.tiny import tiny_bytes, tiny_image

PREDICT = "/v1/predict"
PNG = {"content-type": "image/png"}


def expected(folder: Path, *files: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return Runtime(load_bundle(folder)).predict([decode(file) for file in files]).probs


def problem(http: TestClient, status: int, code: str, **request: object) -> Problem:
    """The problem document of a refused request, checked for its form."""
    response = http.post(PREDICT, **request)  # type: ignore[arg-type]
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(response.content)
    assert (response.status_code, found.status, found.code) == (status, status, code)
    return found


def test_a_raw_body_gets_the_runtimes_probabilities(
    http: TestClient, bundle_folder: Path, service: Service
) -> None:
    file = tiny_bytes(1, kind="JPEG")
    response = http.post(PREDICT, content=file, headers={"content-type": "image/jpeg"})
    assert response.status_code == 200
    answer = PredictAnswer.model_validate_json(response.content)
    [prediction] = answer.predictions
    probs = expected(bundle_folder, file)[0]
    assert list(prediction.probabilities) == ["benign", "malignant"]
    np.testing.assert_allclose(list(prediction.probabilities.values()), probs, atol=1e-5)
    assert (prediction.width, prediction.height) == (40, 32)
    assert answer.bundle.digest == service.manifest.digest
    assert answer.notice == NOTICE == "Educational and research use; not a medical device."


def test_several_parts_are_answered_in_the_order_sent(
    http: TestClient, bundle_folder: Path
) -> None:
    files = [tiny_bytes(1), tiny_bytes(2, kind="WEBP"), tiny_bytes(3, kind="JPEG")]
    response = http.post(PREDICT, files=[("image", file) for file in files])
    answer = PredictAnswer.model_validate_json(response.content)
    found = [list(prediction.probabilities.values()) for prediction in answer.predictions]
    np.testing.assert_allclose(found, expected(bundle_folder, *files), atol=1e-5)
    assert len({prediction.sha256 for prediction in answer.predictions}) == 3


def test_the_spread_is_the_members_standard_deviation(
    http: TestClient, bundle_folder: Path
) -> None:
    file = tiny_bytes(4)
    answer = http.post(PREDICT, content=file, headers=PNG).json()
    members = Runtime(load_bundle(bundle_folder)).predict([decode(file)]).member_probs
    assert answer["predictions"][0]["uncertainty"]["spread"] == pytest.approx(
        float(members[:, 0, 1].std())
    )


@pytest.mark.parametrize(
    ("name", "threshold"), [(None, 0.3), ("sensitivity_0.95", 0.3), ("balanced", 0.5)]
)
def test_the_decision_is_made_at_the_operating_point_asked_for(
    http: TestClient, name: str | None, threshold: float
) -> None:
    params = {} if name is None else {"operating_point": name}
    files = [("image", tiny_bytes(seed)) for seed in range(3)]
    answer = PredictAnswer.model_validate_json(
        http.post(PREDICT, files=files, params=params).content
    )
    for prediction in answer.predictions:
        point = prediction.operating_point
        assert point is not None
        assert (point.name, point.threshold) == (name or "sensitivity_0.95", threshold)
        assert (point.certified, point.reason) == (False, "a test's")
        reached = prediction.probabilities["malignant"] >= threshold
        assert prediction.decision == ("positive" if reached else "negative")


def test_an_unknown_operating_point_is_refused_with_those_known(http: TestClient) -> None:
    params = {"operating_point": "best"}
    found = problem(
        http, 422, "unknown_operating_point", content=tiny_bytes(), headers=PNG, params=params
    )
    assert "'best'" in found.detail
    assert "sensitivity_0.95, balanced" in found.detail


def test_text_that_is_called_jpg_is_refused(http: TestClient) -> None:
    files = {"image": ("lesion.jpg", b"no picture", "image/jpeg")}
    assert "image 1" in problem(http, 415, "unsupported_type", files=files).detail


def test_a_truncated_image_is_named_by_its_place(http: TestClient) -> None:
    file = BytesIO()
    tiny_image(0, (100, 90)).save(file, "JPEG")
    files = [("image", tiny_bytes()), ("image", file.getvalue()[:900])]
    assert problem(http, 422, "damaged_image", files=files).detail.startswith("image 2: damaged")


def test_each_limit_has_its_own_code(http: TestClient) -> None:
    large = b"\xff\xd8\xff" + bytes(20_000)
    problem(http, 413, "too_large", content=large, headers=PNG)
    problem(http, 413, "too_large", files={"image": large})
    problem(http, 413, "too_many_images", files=[("image", tiny_bytes())] * 4)
    wide = BytesIO()
    tiny_image(0, (101, 100)).save(wide, "JPEG")
    problem(http, 413, "too_many_pixels", content=wide.getvalue(), headers=PNG)


def test_no_image_at_all_is_refused(http: TestClient) -> None:
    problem(http, 422, "no_image", headers=PNG)
    problem(http, 422, "no_image", files={"picture": tiny_bytes()})


def test_an_invalid_parameter_is_a_problem_too(http: TestClient) -> None:
    found = problem(http, 422, "invalid_parameter", params={"operating_point": "x" * 101})
    assert found.detail.startswith("operating_point: ")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/v3", 404, "not_found"), ("GET", PREDICT, 405, "method_not_allowed")],
)
def test_the_frameworks_own_errors_are_problems(
    http: TestClient, method: str, path: str, status: int, code: str
) -> None:
    response = http.request(method, path)
    found = Problem.model_validate_json(response.content)
    assert (response.status_code, found.code) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


def test_a_failure_tells_nothing_about_the_inside(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service, "describe", fail)
    monkeypatch.setattr(service, "predict", fail)
    answers = [
        http.get("/v1/model"),
        http.post(PREDICT, content=tiny_bytes(), headers=PNG),
    ]
    for response in answers:
        found = Problem.model_validate_json(response.content)
        assert (response.status_code, found.code) == (500, "internal")
        assert "secret" not in response.text


def test_a_request_keeps_its_id_unless_that_is_long_or_strange(http: TestClient) -> None:
    def echoed(given: str) -> str:
        headers = {"x-request-id": given, **PNG}
        found: str = http.post(PREDICT, content=tiny_bytes(), headers=headers).json()["request_id"]
        return found

    assert echoed("case-17.a") == "case-17.a"
    assert len(echoed("x" * 65)) == 32
    assert len(echoed('"{}"')) == 32
    response = http.get("/nowhere", headers={"x-request-id": "case-18"})
    assert response.json()["request_id"] == "case-18"


def test_the_model_is_described(http: TestClient, service: Service) -> None:
    answer = http.get("/v1/model").json()
    manifest = service.manifest
    assert answer["bundle"] == {"name": "tiny", "version": "1", "digest": manifest.digest}
    assert (answer["classes"], answer["positive"]) == (["benign", "malignant"], "malignant")
    assert answer["members"][0] == {
        "name": "cnn_0",
        "backbone": "cnn",
        "image_size": 16,
        "weight": 0.5,
    }
    assert answer["calibrator"] == {"kind": "temperature", "temperature": 1.3}
    assert [p["name"] for p in answer["operating_points"]] == ["sensitivity_0.95", "balanced"]
    assert answer["prevalence"] == {"benign": 0.6, "malignant": 0.4}
    assert answer["notice"] == NOTICE


def test_live_and_ready_differ_while_a_service_stops(bundle_folder: Path) -> None:
    service = started(ServingConfig(bundle=bundle_folder))
    with TestClient(build_api(service)) as http:
        assert http.get("/readyz").json() == {"status": "ready", "degraded": None}
        service.close()
        assert http.get("/readyz").json()["code"] == "not_ready"
        assert http.get("/readyz").status_code == 503
        assert http.get("/healthz").json() == {"status": "live", "degraded": None}


def test_the_description_is_valid_openapi_and_shows_both_kinds_of_body(http: TestClient) -> None:
    document = http.get("/openapi.json").json()
    OpenAPI.model_validate(document)
    operation = document["paths"][PREDICT]["post"]
    assert list(operation["requestBody"]["content"]) == [
        "multipart/form-data",
        "image/jpeg",
        "image/png",
        "image/webp",
    ]
    assert set(operation["responses"]) == {
        *("200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503")
    }
    assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"]
    assert "HTTPValidationError" not in str(document)


def test_the_page_and_its_files_are_served_with_a_strict_policy(http: TestClient) -> None:
    assert http.get("/docs").status_code == http.get("/redoc").status_code == 404
    page = http.get("/")
    assert NOTICE in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    kinds = [http.get(path).headers["content-type"] for path in ("/page.css", "/page.js")]
    assert [kind.partition(";")[0] for kind in kinds] == ["text/css", "text/javascript"]


def test_the_bundles_golden_images_are_the_pages_examples(http: TestClient) -> None:
    paths = http.get("/v1/model").json()["examples"]
    assert paths == ["/examples/0.png", "/examples/1.png"]
    example = http.get(paths[0])
    assert (example.status_code, example.headers["content-type"]) == (200, "image/png")
    assert example.content.startswith(b"\x89PNG")
    for name in ("2.png", "probs.json", "..%2Fbundle.json"):
        assert http.get(f"/examples/{name}").status_code == 404


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("operating_pont=balanced", "operating_pont: is not known here"),
        ("members=perhaps", "members: must be true or false"),
        ("prevalence=malignant", "prevalence: must be CLASS:SHARE"),
        ("prevalence=malignant:nan", "prevalence: must be CLASS:SHARE"),
        ("operating_point=a&operating_point=b", "operating_point: is given twice"),
        ("prevalence=benign:0.9&prevalence=benign:0.1", "prevalence: benign is given twice"),
        ("operating_point=", "operating_point: must have 1 to 100 characters"),
        ("members=%ff", "the query cannot be read"),
    ],
)
def test_a_parameter_that_says_nothing_is_refused(http: TestClient, query: str, rule: str) -> None:
    found = http.post(f"{PREDICT}?{query}", content=tiny_bytes(), headers=PNG).json()
    assert (found["status"], found["code"]) == (422, "invalid_parameter")
    assert found["detail"].startswith(rule)


def test_a_prevalence_shifts_what_is_told_and_leaves_the_decision(http: TestClient) -> None:
    def asked(query: str) -> dict[str, object]:
        answer = http.post(f"{PREDICT}{query}", content=tiny_bytes(3), headers=PNG).json()
        found: dict[str, object] = answer["predictions"][0]
        return found

    plain, rare = asked(""), asked("?prevalence=malignant:0.01")
    assert plain["at_prevalence"] is None
    assert rare["probabilities"] == plain["probabilities"]
    assert rare["decision"] == plain["decision"]
    shifted = rare["at_prevalence"]
    assert isinstance(shifted, dict)
    # Bayes: the odds times the ratio of the odds of the two prevalences, 0.01 here and 0.4 there.
    p = plain["probabilities"]["malignant"]  # type: ignore[index]
    odds = p / (1 - p) * (0.01 / 0.99) / (0.4 / 0.6)
    assert shifted["malignant"] == pytest.approx(odds / (1 + odds), rel=1e-6)


def test_a_prevalence_of_no_class_is_refused(http: TestClient) -> None:
    found = http.post(f"{PREDICT}?prevalence=mole:0.1", content=tiny_bytes(), headers=PNG).json()
    assert (found["status"], found["code"]) == (422, "invalid_prevalence")


def test_members_tell_their_own_probabilities_where_asked(
    http: TestClient, bundle_folder: Path
) -> None:
    answer = http.post(f"{PREDICT}?members=true", content=tiny_bytes(5), headers=PNG).json()
    prediction = answer["predictions"][0]
    expected_probs = Runtime(load_bundle(bundle_folder)).predict([decode(tiny_bytes(5))])
    told = [list(probs.values()) for probs in prediction["members"].values()]
    assert list(prediction["members"]) == ["cnn_0", "cnn_1"]
    np.testing.assert_allclose(told, expected_probs.member_probs[:, 0], atol=1e-5)
    assert prediction["asked"] == 2


def test_an_explanation_that_nobody_gives_is_refused(http: TestClient) -> None:
    found = http.post("/v1/explain", content=tiny_bytes(), headers=PNG).json()
    assert (found["status"], found["code"]) == (422, "no_explanations")


def test_each_answer_forbids_guessing_its_type(http: TestClient) -> None:
    answers = [http.get("/"), http.get("/v1/model"), http.post(PREDICT), http.get("/nowhere")]
    assert {a.headers["x-content-type-options"] for a in answers} == {"nosniff"}


def test_a_replica_tells_its_own_counts(http: TestClient) -> None:
    http.post(PREDICT, content=tiny_bytes(), headers=PNG)
    text = http.get("/metrics").text
    assert 'consilium_requests_total{route="/v1/predict",status="200"}' in text
