"""What callers see while something goes wrong: a real Ray, two replicas, eight clients."""

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray import serve

from serving.config import Rollout
from serving.scoring.board import Desired, MemoryBoard
from serving.start import APPLICATION
from tests.serving.bundles import rebuilt
from tests.serving.faults.conftest import Bundles, kill_one, replicas, wait_until
from tests.serving.faults.site import (
    CLIENTS,
    FOLLOWED_S,
    Site,
    alone,
    digest_of,
    restore,
    swap,
    two_replicas,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(bundles: Bundles, keys: dict[str, str]) -> Iterator[Site]:
    with two_replicas(bundles, keys) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    restore(running)
    return running


def test_a_killed_replica_costs_what_it_held_and_is_replaced(site: Site) -> None:
    old = digest_of(site.bundles.old)
    with site.load().going(clients=CLIENTS) as load:
        load.wait_for(50)
        name, _ = kill_one()
        killed = time.monotonic()
        load.wait_for(50)  # the other one goes on
        wait_until(lambda: len(replicas()) == 2 and name not in replicas())
        again = time.monotonic()
        load.wait_for(100)
    assert len(load.bad()) <= CLIENTS
    assert {one.status for one in load.bad()} <= {0, 500, 503}
    assert all(one.sent < killed + 2 for one in load.bad())
    assert set(load.statuses(again)) == {(200, "")}
    assert set(load.digests()) == {old}
    assert load.gap(killed) < 5


def test_a_new_bundle_in_the_config_fails_no_request_and_restarts_nothing(site: Site) -> None:
    before = replicas()
    load = swap(site)
    assert set(load.statuses()) == {(200, "")}
    assert replicas() == before
    assert load.gap(load.asked[0].sent) < 5


def test_an_admins_rollout_and_rollback_fail_no_request_and_reach_every_replica(
    site: Site,
) -> None:
    old, new = site.bundles.old, site.bundles.new
    with site.load().going(clients=CLIENTS) as load:
        load.wait_for(50)
        site.ask("PUT", "/v1/admin/rollout", json=alone(new))
        wait_until(lambda: site.serves_only(new), seconds=FOLLOWED_S)
        followed = time.monotonic()
        load.wait_for(50)
        assert set(load.digests(followed)) == {digest_of(new)}
        site.ask("POST", "/v1/admin/rollback")
        wait_until(lambda: site.serves_only(old), seconds=FOLLOWED_S)
        back = time.monotonic()
        load.wait_for(50)
    assert set(load.statuses()) == {(200, "")}
    assert set(load.digests(back)) == {digest_of(old)}


def test_a_canary_is_promoted_on_every_replica(site: Site) -> None:
    old, new = site.bundles.old, site.bundles.new
    both = {"old": {"path": str(old)}, "new": {"path": str(new)}}
    canary = {"bundles": both, "serving": "old", "canary": {"name": "new", "percent": 50}}
    with site.load().going(clients=CLIENTS) as load:
        site.ask("PUT", "/v1/admin/rollout", json=canary)
        time.sleep(3)
        shared = time.monotonic()
        load.wait_for(50)
        assert set(load.digests(shared)) == {digest_of(old), digest_of(new)}
        site.ask("POST", "/v1/admin/promote")
        wait_until(lambda: site.serves_only(new), seconds=FOLLOWED_S)
        promoted = time.monotonic()
        load.wait_for(50)
    assert set(load.statuses()) == {(200, "")}
    assert set(load.digests(promoted)) == {digest_of(new)}


def test_a_replica_that_starts_later_follows_the_admin(site: Site) -> None:
    site.ask("PUT", "/v1/admin/rollout", json=alone(site.bundles.new))
    wait_until(lambda: site.serves_only(site.bundles.new), seconds=FOLLOWED_S)
    name, _ = kill_one()
    wait_until(lambda: len(replicas()) == 2 and name not in replicas())
    assert site.serves_only(site.bundles.new)


def test_who_hears_of_an_edited_config_late_keeps_to_the_admin_until_then() -> None:
    before, admins, edited = (Rollout.of(Path("/bundles") / name) for name in "abc")
    board = MemoryBoard()
    first, second = Desired(board, "consilium"), Desired(board, "consilium")
    first.configured(before)
    second.configured(before)
    first.override(admins)
    assert second.wanted() == admins
    first.configured(edited)
    assert second.wanted() == admins
    second.configured(edited)
    assert second.wanted() == edited


def lost_member(bundles: Bundles, folder: Path) -> dict[str, Any]:
    shutil.copytree(bundles.new, folder)
    next(folder.glob("members/*.onnx")).unlink()
    return alone(folder)


def tampered(bundles: Bundles, folder: Path) -> dict[str, Any]:
    shutil.copytree(bundles.new, folder)
    file = next(folder.glob("members/*.onnx"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    return alone(folder)


def another_digest(bundles: Bundles, _: Path) -> dict[str, Any]:
    return alone(bundles.new, digest=digest_of(bundles.old))


def off_its_golden_images(bundles: Bundles, folder: Path) -> dict[str, Any]:
    return alone(rebuilt(folder, bundles.old, golden=0.2))


def no_rollout(bundles: Bundles, _: Path) -> dict[str, Any]:
    return {**alone(bundles.new), "serving": "nobody"}


SPOILT = {
    "lost member": (lost_member, "missing from the bundle"),
    "tampered": (tampered, "changed since it was built"),
    "another digest": (another_digest, "digest"),
    "off its golden images": (off_its_golden_images, "golden"),
    "no rollout": (no_rollout, "none of the bundles"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_bad_bundle_is_refused_with_a_reason_and_the_old_one_serves_on(
    site: Site, tmp_path: Path, name: str
) -> None:
    spoil, reason = SPOILT[name]
    before = replicas()
    with site.load().going(clients=CLIENTS) as load:
        site.operator.deploy(spoil(site.bundles, tmp_path / "bad"))
        wait_until(lambda: all(reason in refusals(model) for model in site.models()))
        load.wait_for(50)
    assert set(load.statuses()) == {(200, "")}
    assert set(load.digests()) == {digest_of(site.bundles.old)}
    assert replicas() == before
    assert serve.status().applications[APPLICATION].status == "RUNNING"


def refusals(model: dict[str, Any]) -> str:
    """Why bundles are refused, by /v1/model."""
    return "; ".join(version["reason"] or "" for version in model["versions"])


def test_an_admin_is_told_why_a_bundle_is_refused(site: Site) -> None:
    folder = site.bundles.root / "spoilt"
    rollout = tampered(site.bundles, folder)
    headers = {"authorization": f"Bearer {site.keys['admin']}"}
    url = f"{site.url}/v1/admin/rollout"
    try:
        answer = httpx.put(url, json=rollout, headers=headers, timeout=60, trust_env=False)
    finally:
        shutil.rmtree(folder)
    assert (answer.status_code, answer.json()["code"]) == (422, "bundle_refused")
    assert "changed since it was built" in answer.json()["detail"]
    assert {model["bundle"]["digest"] for model in site.models()} == {digest_of(site.bundles.old)}


def test_slow_clients_are_sent_away_and_the_others_are_answered(site: Site) -> None:
    with site.load().going(clients=CLIENTS) as load:
        slow = [_slow_upload(site) for _ in range(CLIENTS)]
        said = [_drip(connection) for connection in slow]
        load.wait_for(50)
    assert set(load.statuses()) == {(200, "")}
    assert all(answer == b"" or b" 408 " in answer.partition(b"\r\n")[0] for answer in said)
    assert any(b'"slow_body"' in answer for answer in said)


def _slow_upload(site: Site) -> socket.socket:
    """Headers that promise a body, and its first byte."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    key = site.keys["predict"]
    connection.sendall(
        f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: image/png\r\nContent-Length: 5000\r\n\r\n\x89".encode("latin-1")
    )
    return connection


def _drip(connection: socket.socket) -> bytes:
    """A byte a second until an answer comes; the answer."""
    answer = b""
    with connection:
        connection.settimeout(1)
        for _ in range(30):
            try:
                connection.sendall(b"P")
                piece = connection.recv(65536)
            except TimeoutError:
                if answer:
                    return answer
                continue
            except OSError:
                return answer
            if not piece:
                return answer
            answer += piece
    pytest.fail("a slow client was never sent away")
