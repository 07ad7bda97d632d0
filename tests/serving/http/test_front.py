"""Where requests arrive: keys, rates, limits, logs."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.config import AuditConfig, RateConfig, ServingConfig
from serving.http.api import build_api
from serving.http.keys import add_key
from serving.scoring.service import Service
from tests.serving.conftest import started
from tests.tiny import tiny_bytes

PREDICT = "/v1/predict"
PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    """A secret by scope."""
    file = folder / "keys.yaml"
    return {
        "predict": add_key(file, "clinic", ["predict"]),
        "admin": add_key(file, "operator", ["admin"]),
    }


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, folder: Path, keys: dict[str, str]) -> Iterator[Service]:
    config = ServingConfig(
        bundle=bundle_folder,
        keys=folder / "keys.yaml",
        rate=RateConfig(per_minute=1, burst=12),
        audit=AuditConfig(folder=folder / "audit"),
        cors_origins=["https://clinic.example"],
    )
    service = started(config)
    yield service
    service.close()


@pytest.fixture
def http(guarded: Service) -> Iterator[TestClient]:
    with TestClient(build_api(guarded)) as http:
        yield http


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", **PNG}


def test_without_a_key_nothing_is_scored_or_told(http: TestClient) -> None:
    for path in (PREDICT, "/v1/explain", "/v2/models/tiny/infer"):
        answer = http.post(path, content=tiny_bytes(), headers=PNG)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert http.get("/v1/model").status_code == 401
    wrong = http.post(PREDICT, content=tiny_bytes(), headers=bearer("con_clinic_" + "x" * 43))
    assert wrong.status_code == 401


@pytest.mark.parametrize("path", ["/", "/page.css", "/healthz", "/readyz", "/openapi.json"])
def test_what_says_nothing_of_anyone_is_open(http: TestClient, path: str) -> None:
    assert http.get(path).status_code == 200


def test_a_key_opens_what_its_scope_says(http: TestClient, keys: dict[str, str]) -> None:
    user, admin = bearer(keys["predict"]), bearer(keys["admin"])
    assert http.post(PREDICT, content=tiny_bytes(), headers=user).status_code == 200
    named = {"x-api-key": keys["predict"], **PNG}
    assert http.post(PREDICT, content=tiny_bytes(), headers=named).status_code == 200
    for path in ("/v1/admin/rollout", "/metrics"):
        refused = http.get(path, headers=user)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert http.get(path, headers=admin).status_code == 200


@pytest.mark.parametrize("prefix", ["/consilium", "/consilium/"])
def test_below_a_prefix_the_same_keys_are_asked_for(
    guarded: Service, service: Service, keys: dict[str, str], prefix: str
) -> None:
    admin, user = "/consilium/v1/admin/rollout", bearer(keys["predict"])
    with TestClient(build_api(guarded), root_path=prefix) as http:
        assert http.get(admin, headers=user).status_code == 403
        assert http.get("/consilium/metrics", headers=user).status_code == 403
        asked = http.post(f"/consilium{PREDICT}", content=tiny_bytes(), headers=user)
        assert asked.status_code == 200
    with TestClient(build_api(service), root_path=prefix) as open_to_all:
        assert open_to_all.get(admin).status_code == 403
        assert open_to_all.get("/consilium/").status_code == 200


def test_a_key_is_held_to_its_rate_and_others_are_not(
    guarded: Service, keys: dict[str, str]
) -> None:
    with TestClient(build_api(guarded)) as http:  # a front of its own, with rates of its own
        answers = [http.get("/v1/model", headers=bearer(keys["predict"])) for _ in range(13)]
        assert [answer.status_code for answer in answers] == [200] * 12 + [429]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert http.get("/v1/model", headers=bearer(keys["admin"])).status_code == 200


def test_each_answer_is_audited_and_none_of_its_pixels(
    http: TestClient, keys: dict[str, str], folder: Path
) -> None:
    headers = bearer(keys["predict"]) | {"x-request-id": "case-7"}
    answer = http.post(PREDICT, content=tiny_bytes(4), headers=headers).json()
    [file] = (folder / "audit").glob("*.jsonl")
    last = json.loads(file.read_text().splitlines()[-1])
    told = answer["predictions"][0]
    assert (last["request_id"], last["key"], last["image"]) == ("case-7", "clinic", told["sha256"])
    assert (last["decision"], last["bundle"]) == (told["decision"], answer["bundle"]["digest"])
    assert len(file.read_bytes().splitlines()[-1]) < 1000


def test_an_explanation_is_audited_too(bundle_folder: Path, tmp_path: Path) -> None:
    async def explain(*_: object) -> dict[str, object]:
        return {"class_name": "malignant", "overlay_png": "", "map": [[0.0]], "members": {}}

    config = ServingConfig(bundle=bundle_folder, audit=AuditConfig(folder=tmp_path / "audit"))
    service = Service(config, explain=explain)
    assert config.rollout is not None
    service.start(config.rollout)
    with TestClient(build_api(service)) as http:
        assert http.post("/v1/explain", content=tiny_bytes(), headers=PNG).status_code == 200
    service.close()
    [file] = (tmp_path / "audit").glob("*.jsonl")
    [line] = [json.loads(text) for text in file.read_text().splitlines()]
    assert (line["kind"], line["decision"], len(line["image"])) == ("explanation", None, 64)


def test_what_cannot_be_audited_is_not_answered(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServingConfig(bundle=bundle_folder, audit=AuditConfig(folder=tmp_path / "audit"))
    service = started(config)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.monitor.audit.os.write", full)
    with TestClient(build_api(service)) as http:
        answer = http.post(PREDICT, content=tiny_bytes(), headers=PNG)
    monkeypatch.undo()
    service.close()
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")


def test_a_page_elsewhere_may_ask_only_where_the_config_says(http: TestClient) -> None:
    def allowed(origin: str) -> str | None:
        asked = {"origin": origin, "access-control-request-method": "POST"}
        answer: str | None = http.options(PREDICT, headers=asked).headers.get(
            "access-control-allow-origin"
        )
        return answer

    assert allowed("https://clinic.example") == "https://clinic.example"
    assert allowed("https://other.example") is None


def test_the_access_log_tells_the_route_and_nothing_of_the_query(
    guarded: Service, keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("consilium.access")
    logger.addHandler(caplog.handler)  # it does not propagate
    try:
        with TestClient(build_api(guarded)) as http:
            http.get("/nowhere/secret-name?patient=7", headers=bearer(keys["admin"]))
    finally:
        logger.removeHandler(caplog.handler)
    line = json.loads(caplog.messages[-1].splitlines()[-1])
    assert (line["route"], line["status"], line["key"]) == ("other", 404, "operator")
    assert "secret-name" not in caplog.text
    assert "patient" not in caplog.text
