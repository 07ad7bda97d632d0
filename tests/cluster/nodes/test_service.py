"""A service over several machines under load: what a fault costs its callers."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes.machines import network
from tests.cluster.nodes.service_site import (
    ServiceSite,
    lose_a_machine,
    lose_the_head,
    service_site,
    update_all,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceSite]:
    with network() as net, service_site(net, tmp_path_factory.mktemp("service")) as made:
        yield made


def test_a_rolling_update_fails_no_request(site: ServiceSite) -> None:
    found = update_all(site)
    assert (found.lost, found.errors) == (0, 0)


def test_a_machine_that_is_lost_leaves_the_others_answering(site: ServiceSite) -> None:
    found = lose_a_machine(site)
    assert found.lost == 0
    assert found.errors <= 10  # what the lost replica held


def test_a_head_that_is_lost_and_comes_back_finds_the_same_service(site: ServiceSite) -> None:
    found = lose_the_head(site)
    assert (found.lost, found.errors) == (0, 0)
