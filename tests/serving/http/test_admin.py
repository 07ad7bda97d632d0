import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from search.errors import BundleError, ServingError
from serving.config import Rollout, ServingConfig, Version, as_user_config
from serving.http.admin import LARGEST_BODY, router
from serving.http.problems import add_handlers
from serving.scoring.board import Desired, MemoryBoard
from serving.scoring.compare import Comparison
from serving.scoring.versions import Versions


class Response(Protocol):
    @property
    def status_code(self) -> int: ...
    def json(self) -> Any: ...


@dataclass(frozen=True)
class Opened:
    digest: str
    n_lost: int = 0


class Full(MemoryBoard):
    full = False

    def put(self, key: str, value: str) -> None:
        if self.full:
            raise ServingError("Ray's head does not answer")
        super().put(key, value)


def load(version: Version) -> Opened:
    """Refuses what is named so; asks not to be on an event loop."""
    with pytest.raises(RuntimeError, match=r"no running event loop"):
        asyncio.get_running_loop()
    if "bad" in version.path.name:
        raise BundleError(f"{version.path}: golden images come out 2.0e-03 off")
    return Opened(f"digest {version.path.name}")


def rollout(serving: str, *, canary: str | None = None, **folders: Path | str) -> dict[str, Any]:
    """A rollout as an admin writes it."""
    paths = folders or {"old": Path("/bundles/old"), "new": Path("/bundles/new")}
    body: dict[str, Any] = {
        "bundles": {name: {"path": str(path)} for name, path in paths.items()},
        "serving": serving,
    }
    return body | ({} if canary is None else {"canary": {"name": canary, "percent": 5}})


CONFIGURED = Rollout.model_validate(rollout("old"))


@dataclass
class Replica:
    board: Full
    config: ServingConfig = field(default_factory=ServingConfig)
    versions: Versions[Opened] = field(default_factory=lambda: Versions(load))
    comparison: Comparison = field(default_factory=Comparison)

    def __post_init__(self) -> None:
        self.desired = Desired(self.board, "consilium")
        self.desired.configured(CONFIGURED)
        self.versions.apply(self.desired.wanted())

    def roles(self) -> dict[str, str]:
        return {state.name: state.role for state in self.versions.states()}


@pytest.fixture
def board() -> Full:
    return Full()


@pytest.fixture
def replica(board: Full) -> Iterator[Replica]:
    replica = Replica(board)
    yield replica
    replica.comparison.close()


def client(replica: Replica) -> TestClient:
    app = FastAPI()
    app.state.service = replica
    app.include_router(router)
    add_handlers(app)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def http(replica: Replica) -> TestClient:
    return client(replica)


def put(http: TestClient, body: dict[str, Any]) -> Response:
    return http.put("/v1/admin/rollout", json=body)


def refused(response: Response, status: int, code: str) -> str:
    """The detail of a problem document of this status and code."""
    assert (response.status_code, response.json()["code"]) == (status, code)
    detail: str = response.json()["detail"]
    return detail


def test_the_rollout_is_shown_with_what_is_loaded_and_compared(
    http: TestClient, replica: Replica
) -> None:
    replica.comparison.close()
    replica.comparison.offer("shadow", ("positive", 0.5), lambda: ("positive", 0.5))
    answer = http.get("/v1/admin/rollout").json()
    assert Rollout.model_validate(answer["rollout"]) == CONFIGURED
    assert {one["name"]: one["role"] for one in answer["versions"]} == {
        "old": "serving",
        "new": "ready",
    }
    assert answer["comparisons"]["shadow"]["dropped"] == 1
    assert (answer["previous"], answer["reason"]) == (None, None)


def test_a_new_rollout_is_served_here_and_wanted_everywhere(
    http: TestClient, replica: Replica, board: Full
) -> None:
    response = put(http, rollout("old", canary="new"))
    assert response.status_code == 200
    assert replica.roles() == {"old": "serving", "new": "canary"}
    other = Desired(board, "consilium")
    other.configured(CONFIGURED)
    wanted = Rollout.model_validate(rollout("old", canary="new"))
    assert other.wanted() == wanted
    assert Rollout.model_validate(response.json()["rollout"]) == wanted
    assert Rollout.model_validate(response.json()["previous"]) == CONFIGURED


def test_comparisons_begin_anew_with_another_rollout(http: TestClient, replica: Replica) -> None:
    replica.comparison.close()
    replica.comparison.offer("canary", ("positive", 0.5), lambda: ("positive", 0.5))
    put(http, rollout("old"))
    assert replica.comparison.counts() != {}
    put(http, rollout("old", canary="new"))
    assert replica.comparison.counts() == {}


def test_a_refused_bundle_is_a_422_with_the_reason_and_changes_nothing(
    http: TestClient, replica: Replica, tmp_path: Path
) -> None:
    replica.config = ServingConfig(bundle_root=tmp_path)
    before = replica.versions.live
    body = rollout("new", old="/bundles/old", new=tmp_path / "bad")
    detail = refused(put(http, body), 422, "bundle_refused")
    assert "golden images come out 2.0e-03 off" in detail
    assert replica.versions.live is before
    assert replica.desired.wanted() == CONFIGURED
    states = http.get("/v1/admin/rollout").json()["versions"]
    assert [one["reason"] for one in states if one["role"] == "refused"] == [detail]


def test_what_every_replica_cannot_be_told_does_not_stay_here(
    http: TestClient, replica: Replica, board: Full
) -> None:
    board.full = True
    detail = refused(put(http, rollout("new")), 503, "rollout_not_kept")
    assert detail == "nothing has changed: Ray's head does not answer"
    assert replica.roles() == {"old": "serving", "new": "ready"}


@pytest.mark.parametrize(
    ("name", "path"), [("old", "other"), ("third", "old"), ("old", "old/../other")]
)
def test_without_a_root_only_bundles_of_the_rollout_may_be_named(
    name: str, path: str, http: TestClient, replica: Replica
) -> None:
    body = rollout(name, **{name: f"/bundles/{path}"})
    detail = refused(put(http, body), 403, "bundle_not_allowed")
    assert "set bundle_root" in detail
    assert replica.versions.live.rollout == CONFIGURED


def test_a_digest_may_be_asked_for_and_not_taken_out(http: TestClient, replica: Replica) -> None:
    pinned = rollout("old")
    pinned["bundles"]["old"]["digest"] = "digest old"
    replica.desired.configured(Rollout.model_validate(pinned))
    refused(put(http, rollout("old")), 403, "bundle_not_allowed")
    pinned["bundles"]["new"]["digest"] = "digest new"
    assert put(http, pinned).status_code == 200


def test_a_bundle_of_the_config_may_be_named_again(http: TestClient) -> None:
    assert put(http, rollout("old", old="/bundles/old")).status_code == 200
    assert put(http, rollout("new")).status_code == 200


def test_below_the_root_new_bundles_may_be_named(
    http: TestClient, replica: Replica, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    replica.config = ServingConfig(bundle_root=tmp_path / "root")
    body = rollout("third", third=tmp_path / "root" / "third", old="/bundles/old")
    assert put(http, body).status_code == 200
    assert replica.roles() == {"third": "serving", "old": "ready"}


@pytest.mark.parametrize("path", ["beside", "root-too", "root/../beside", "root/link", "root", ""])
def test_out_of_the_root_none_may(
    path: str, http: TestClient, replica: Replica, tmp_path: Path
) -> None:
    for folder in ("root", "beside", "root-too"):
        (tmp_path / folder).mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "beside")
    replica.config = ServingConfig(bundle_root=tmp_path / "root")
    body = rollout("third", third=f"{tmp_path}/{path}")
    detail = refused(put(http, body), 403, "bundle_not_allowed")
    assert detail == "'third': a new bundle lies below bundle_root, links followed"


def test_the_canary_is_promoted_and_the_one_before_stays_ready(
    http: TestClient, replica: Replica
) -> None:
    put(http, rollout("old", canary="new") | {"shadow": "new"})
    answer = http.post("/v1/admin/promote").json()
    assert replica.roles() == {"new": "serving", "old": "ready"}
    assert as_user_config(Rollout.model_validate(answer["rollout"])) == rollout("new")


def test_without_a_canary_nothing_is_promoted(http: TestClient) -> None:
    assert "there is no canary" in refused(http.post("/v1/admin/promote"), 409, "no_canary")


def test_a_rollback_goes_back_and_once_more_undoes_that(http: TestClient, replica: Replica) -> None:
    put(http, rollout("new"))
    assert http.post("/v1/admin/rollback").status_code == 200
    assert replica.roles() == {"old": "serving", "new": "ready"}
    assert replica.desired.wanted() == CONFIGURED
    assert http.post("/v1/admin/rollback").status_code == 200
    assert replica.roles() == {"new": "serving", "old": "ready"}


def test_a_replica_that_was_not_there_rolls_back_too(
    http: TestClient, replica: Replica, board: Full
) -> None:
    put(http, rollout("new"))
    later = Replica(board)
    assert later.roles() == {"new": "serving", "old": "ready"}
    assert client(later).post("/v1/admin/rollback").status_code == 200
    assert later.roles() == {"old": "serving", "new": "ready"}
    later.comparison.close()


def test_without_a_rollout_before_nothing_is_rolled_back(http: TestClient) -> None:
    assert "no rollout before" in refused(http.post("/v1/admin/rollback"), 409, "no_rollback")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "Invalid JSON"),
        (b"{}", "bundles: Field required"),
        (b'{"bundles": {"x": {"path": "/b"}}, "serving": "y"}', "is none of the bundles"),
        (b'{"bundles": {"x": {"path": "s3://b"}}, "serving": "x"}', "a local path is needed"),
        (b'{"bundles": {"x": {"path": "~nobody-at-all"}}, "serving": "x"}', "cannot be resolved"),
        (b'{"bundles": {"x": {"path": "/a\\u0000"}}, "serving": "x"}', "null byte"),
        (b'{"bundles": {"x": {"path": "/b"}}, "serving": "x", "by": 1}', "by: Extra inputs"),
    ],
)
def test_a_body_that_is_no_rollout_is_a_422(body: bytes, detail: str, http: TestClient) -> None:
    response = http.put("/v1/admin/rollout", content=body)
    assert detail in refused(response, 422, "invalid_parameter")


def test_a_body_is_not_read_past_its_limit(http: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2 * LARGEST_BODY // 1024):
            yield b" " * 1024

    refused(http.put("/v1/admin/rollout", content=endless()), 413, "too_large")


def test_before_the_first_bundle_is_loaded_the_answer_is_503(
    http: TestClient, replica: Replica
) -> None:
    replica.versions = Versions(load)
    assert "no bundle is loaded yet" in refused(put(http, rollout("new")), 503, "not_ready")


def test_the_description_of_the_body_is_whole(http: TestClient) -> None:
    described = http.get("/openapi.json").json()["paths"]["/v1/admin/rollout"]["put"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["bundles", "serving"]
    version = schema["properties"]["bundles"]["additionalProperties"]
    assert set(version["properties"]) == {"path", "digest"}
    assert "$ref" not in str(schema)
