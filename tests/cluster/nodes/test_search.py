"""A search over several machines: what is built on each of them, and what a fault costs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from search.config import ExperimentConfig
from tests.cluster.nodes.machines import Network, network
from tests.cluster.nodes.search_site import (
    TRIALS,
    SearchSite,
    kill_the_driver,
    lose_a_machine,
    lose_the_head,
    search_site,
)
from tests.search.study.nothing_lost import check_nothing_lost
from tests.servers import postgres, s3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture(scope="module")
def bucket(net: Network) -> Iterator[str]:
    with s3(net.ip) as url:
        yield url


@pytest.fixture(scope="module")
def storage(net: Network) -> Iterator[str]:
    with postgres(net.ip) as url:
        yield url


@pytest.fixture(params=[2])
def site(
    request: pytest.FixtureRequest,
    net: Network,
    bucket: str,
    storage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SearchSite]:
    """A cluster of so many workers as the parameter says."""
    monkeypatch.setenv("PGPASSWORD", storage.split(":")[2].split("@", maxsplit=1)[0])
    with search_site(net, tmp_path, bucket=bucket, storage=storage, workers=request.param) as made:
        yield made
    for machine in net.machines.values():
        if machine.first.poll() is None:
            machine.off()


def maps(site: SearchSite, name: str) -> list[str]:
    """The decoded maps on a machine's own disk."""
    return site.network.machines[name].files("cache/*/pixels.npy")


def trained_on(site: SearchSite) -> set[str]:
    """The machines that trials trained on."""
    return {(record.worker or "").rpartition(":")[0] for record in site.records()}


def kept(config: ExperimentConfig) -> None:
    check_nothing_lost(config, trials=TRIALS)


@pytest.mark.parametrize("site", [1], indirect=True)
def test_a_machine_that_is_lost_costs_no_trial_and_each_decodes_for_itself(
    site: SearchSite,
) -> None:
    found = lose_a_machine(site)
    assert (found.lost, found.errors) == (0, 0)
    assert trained_on(site) == {"w1", "spare"}
    kept(site.config)
    assert len(maps(site, "spare")) == 1
    assert maps(site, "head") == []  # no trial trains there


def test_a_driver_that_is_killed_goes_on_by_the_same_command(site: SearchSite) -> None:
    found = kill_the_driver(site)
    assert found.lost == 0
    assert trained_on(site) == {"w1", "w2"}
    kept(site.config)
    assert maps(site, "w1") == maps(site, "w2") != []


def test_a_head_that_is_lost_costs_no_trial(site: SearchSite) -> None:
    found = lose_the_head(site)
    assert found.lost == 0
    kept(site.config)
