"""The interface against its own description: what OpenAPI's document says, schemathesis tries."""

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import httpx
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from schemathesis.engine import events, from_schema

from serving.config import Rollout, ServingConfig, Version
from serving.http.api import build_api
from serving.http.images import TYPES
from serving.http.keys import add_key
from serving.scoring.service import Service
from tests.serving.bundles import rebuilt
from tests.serving.live import live
from tests.tiny import tiny_bytes

IMAGES = [tiny_bytes(seed, kind=kind) for seed in range(2) for kind in ("JPEG", "PNG", "WEBP")]
INFER = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
# What no schema can say, so that a request which is well formed may be refused with 422 all the
# same: only by these operations, and only in these words.
UNSAYABLE = {
    # One share a class, and all of them together below 1.
    ("POST", "/v1/predict"): r"invalid_prevalence: |invalid_parameter: prevalence: .* given twice",
    # Roles are names of the bundles that the same body names; not every text is a path.
    ("PUT", "/v1/admin/rollout"): r"(?s)invalid_parameter: (.*: Value error|bundles: a path )",
    # A shape that fits the data, and a point that the bundle has, in a body of any bundle's.
    **dict.fromkeys(
        [("POST", path) for path in INFER],
        r"invalid_parameter: shape: not |unknown_operating_point: ",
    ),
}


class Served(NamedTuple):
    url: str
    headers: dict[str, str]

    def document(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/openapi.json").raise_for_status().json())


@pytest.fixture(scope="module")
def served(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that explains and asks for keys, and the key of someone who may do all."""
    file = tmp_path_factory.mktemp("contract") / "keys.yaml"
    secret = add_key(file, "operator", ["admin"])
    config = ServingConfig(bundle=bundle_folder, keys=file, rate=None, access_log=False)
    with live(config) as url:
        yield Served(url, {"Authorization": f"Bearer {secret}"})


def failures_of(served: Served, n_examples: int) -> tuple[list[str], int]:
    """What schemathesis has to say against the service, by all of its checks; and of how many
    requests.
    """
    for kind in TYPES:
        schemathesis.openapi.media_type(kind, st.sampled_from(IMAGES))
    texts = [b64encode(image).decode() for image in IMAGES]
    schemathesis.openapi.format("byte", st.sampled_from(texts))
    generation = {"deterministic": True, "max-examples": n_examples, "database": "none"}
    settings = {
        "seed": 1,
        "headers": served.headers,
        "continue-on-failure": True,
        "generation": generation,
        "phases": {"stateful": {"enabled": False}},
    }
    config = schemathesis.Config.from_dict(settings)
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json", config=config)
    found, n_requests = [], 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(repr(event))
        if isinstance(event, events.ScenarioFinished):
            found += list(_failed(event.recorder))
            n_requests += len(event.recorder.interactions)
    return found, n_requests


def _failed(recorder: Any) -> Iterator[str]:
    for case_id, checks in recorder.checks.items():
        case = recorder.cases[case_id].value
        for check in checks:
            if check.failure_info is not None:
                answer = recorder.interactions[case_id].response
                if check.name == "positive_data_acceptance" and _unsayable(case, answer):
                    continue
                said = "" if answer is None else answer.content[:300]
                failure = check.failure_info.failure
                yield f"{check.name}: {case.as_curl_command()[:1000]}\n{failure}\n{said!r}"


def _unsayable(case: Any, answer: Any) -> bool:
    rule, problem = UNSAYABLE.get((case.method, case.path)), answer.json()
    said = f"{problem['code']}: {problem['detail']}"
    return rule is not None and answer.status_code == 422 and re.match(rule, said) is not None


def test_the_service_does_as_its_description_says(served: Served) -> None:
    found, n_requests = failures_of(served, n_examples=2)
    assert not found, "\n\n".join(found)
    assert n_requests > 400


@pytest.mark.slow
def test_it_does_so_whatever_is_sent(served: Served) -> None:
    found, n_requests = failures_of(served, n_examples=30)
    assert not found, "\n\n".join(found)
    assert n_requests > 900


def examples(url: str, operation: dict[str, Any]) -> list[dict[str, Any]]:
    """What httpx is to send for each example of a body; one of nothing where there is no body."""
    found: list[dict[str, Any]] = []
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        if "example" in media:
            found.append({"json": media["example"]})
        for example in media.get("examples", {}).values():
            image = httpx.get(urljoin(url, example["externalValue"])).raise_for_status()
            found.append({"content": image.content, "headers": {"content-type": kind}})
    return found if "requestBody" in operation else [{}]


def given(operation: dict[str, Any], place: str) -> dict[str, Any]:
    """The examples of the parameters in the query, or in the path."""
    parameters = [each for each in operation.get("parameters", []) if each["in"] == place]
    return {each["name"]: each["example"] for each in parameters if "example" in each}


def test_every_example_of_the_description_works(served: Served) -> None:
    answers: dict[tuple[str, str], int] = {}
    with httpx.Client(base_url=served.url, headers=served.headers) as http:
        for path, operations in served.document()["paths"].items():
            for method, operation in operations.items():
                url, query = path.format(**given(operation, "path")), given(operation, "query")
                found = examples(served.url, operation)
                assert found, f"{method} {path} has no example"
                for body in found:
                    answers[method, path] = http.request(
                        method, url, params=query, **body
                    ).status_code
    refused = {which: status for which, status in answers.items() if status != 200}
    # An open document tells nobody where bundles lie, and this service has no rollout before.
    assert refused == {
        ("put", "/v1/admin/rollout"): 403,
        ("post", "/v1/admin/promote"): 409,
        ("post", "/v1/admin/rollback"): 409,
    }
    assert len(answers) > 15


def test_a_key_is_described_where_one_is_asked_for(served: Served, http: TestClient) -> None:
    def guarded(document: dict[str, Any]) -> set[str]:
        return {
            path
            for path, operations in document["paths"].items()
            if all("security" in operation for operation in operations.values())
        }

    admin = {f"/v1/admin/{name}" for name in ("rollout", "promote", "rollback")}
    assert guarded(http.get("/openapi.json").json()) == admin
    assert guarded(served.document()) >= admin | {"/v1/predict", "/v1/model", *INFER}
    assert "/healthz" not in guarded(served.document())


def test_the_description_follows_the_bundle_that_serves(
    bundle_folder: Path, tmp_path: Path
) -> None:
    other = rebuilt(tmp_path / "other", bundle_folder, name="other", positive="benign")
    bundles = {"one": Version(path=bundle_folder), "two": Version(path=other)}
    service = Service(ServingConfig(access_log=False))
    service.start(Rollout(bundles=bundles, serving="one"))
    try:
        with TestClient(build_api(service)) as http:
            examples = []
            for name in ("one", "two"):
                service.versions.apply(Rollout(bundles=bundles, serving=name))
                paths = http.get("/openapi.json").json()["paths"]
                [named] = paths["/v2/models/{name}"]["get"]["parameters"]
                [asked] = paths["/v1/explain"]["post"]["parameters"]
                examples.append((named["example"], asked["example"]))
        assert examples == [("tiny", "malignant"), ("other", "benign")]
    finally:
        service.close()
