"""The same with HAProxy instead of Serve's own proxy in front."""

import time
from collections.abc import Iterator

import pytest

from tests.serving.faults.conftest import Bundles, kill_one, replicas, wait_until
from tests.serving.faults.load import CUT
from tests.serving.faults.site import CLIENTS, Site, digest_of, restore, swap, two_replicas

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(bundles: Bundles, keys: dict[str, str]) -> Iterator[Site]:
    with two_replicas(bundles, keys, haproxy=True) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    restore(running)
    return running


def test_a_new_bundle_in_the_config_fails_no_request_and_restarts_nothing(site: Site) -> None:
    before = replicas()
    load = swap(site)
    assert set(load.statuses()) == {(200, "")}
    assert replicas() == before


def test_a_killed_replica_costs_what_it_held_and_is_replaced(site: Site) -> None:
    with site.load().going(clients=CLIENTS) as load:
        load.wait_for(50)
        name, _ = kill_one()
        killed = time.monotonic()
        load.wait_for(50)  # the other one goes on
        wait_until(lambda: len(replicas()) == 2 and name not in replicas())
        again = time.monotonic()
        load.wait_for(100)
    # Each client at most twice: its connection ends, and one is still led to the dead replica.
    assert len(load.bad()) <= 2 * CLIENTS
    assert {one.status for one in load.bad()} <= {CUT, 500, 502, 503}
    assert all(one.sent < killed + 5 for one in load.bad())
    assert set(load.statuses(again)) == {(200, "")}
    assert set(load.digests()) == {digest_of(site.bundles.old)}
