"""A service with two replicas whose config an operator edits, and what its callers see of that."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ray import serve

from ensemble.bundle import load_bundle
from tests.servers import free_port
from tests.serving.faults.conftest import (
    FILES,
    Bundles,
    Operator,
    replicas,
    serving_ray,
    wait_until,
)
from tests.serving.faults.load import Load

CLIENTS = 8
ASKED = 12  # one after the other, a balancer might have the same replica answer each
FOLLOWED_S = 15  # in which every replica has to follow: each looks once a second
BODY_TIMEOUT_S = 2.0
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Site:
    """The service that is broken, and who runs it."""

    url: str
    operator: Operator
    bundles: Bundles
    keys: dict[str, str]

    def load(self) -> Load:
        """Clients for it."""
        return Load(self.url, FILES, key=self.keys["predict"])

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """What an admin gets, over a connection of its own: any replica may answer."""
        headers = {"authorization": f"Bearer {self.keys['admin']}"}
        answer = httpx.request(
            method, self.url + path, headers=headers, timeout=60, trust_env=False, **options
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def models(self) -> list[dict[str, Any]]:
        """What /v1/model says, asked so often at once that each replica has surely said it."""
        with ThreadPoolExecutor(ASKED) as pool:
            return [*pool.map(lambda _: self.ask("GET", "/v1/model"), range(ASKED))]

    def serves_only(self, bundle: Path) -> bool:
        """Whether every replica answers by this bundle and has refused none."""
        digest = digest_of(bundle)
        return all(
            model["bundle"]["digest"] == digest
            and all(version["role"] != "refused" for version in model["versions"])
            for model in self.models()
        )


def digest_of(bundle: Path) -> str:
    return load_bundle(bundle).manifest.digest


def alone(bundle: Path, *, name: str = "only", **version: str) -> dict[str, Any]:
    """A rollout of one bundle."""
    return {"bundles": {name: {"path": str(bundle), **version}}, "serving": name}


@contextmanager
def two_replicas(
    bundles: Bundles, keys: dict[str, str], *, haproxy: bool = False
) -> Iterator[Site]:
    """A Ray and a service in it; nothing is deployed until `restore`."""
    port = free_port()
    args = {
        "port": port,
        "keys": keys["file"],
        "min_replicas": 2,
        "max_replicas": 2,
        "explain": None,
        "rate": {"per_minute": 1_000_000, "burst": 100_000},
        "bundle_root": str(bundles.root),
        "body_timeout_s": BODY_TIMEOUT_S,
        "request_timeout_s": 10,
    }
    # HAProxy's own two ports are fixed, and another Serve on this machine may have them.
    names = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
    ports = {name: str(free_port()) for name in names}
    with serving_ray(num_cpus=4, haproxy=haproxy, environment=ports):
        serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 10})
        yield Site(f"http://127.0.0.1:{port}", Operator(port, args), bundles, keys)


def restore(site: Site) -> None:
    """Two replicas that serve the old bundle, whatever happened before."""
    # A name of its own each time: a config that is not edited leaves an admin's word standing.
    site.operator.deploy(alone(site.bundles.old, name=f"old_{next(NUMBERS)}"))
    wait_until(lambda: len(replicas()) == 2)
    wait_until(lambda: site.serves_only(site.bundles.old))


def swap(site: Site) -> Load:
    """The load during which the config names the new bundle; ends as every replica follows."""
    with site.load().going(clients=CLIENTS) as load:
        load.wait_for(50)
        site.operator.deploy(alone(site.bundles.new))
        wait_until(lambda: site.serves_only(site.bundles.new), seconds=FOLLOWED_S)
        followed = time.monotonic()
        load.wait_for(100)
    assert set(load.digests(followed)) == {digest_of(site.bundles.new)}
    assert set(load.digests()) == {digest_of(site.bundles.new), digest_of(site.bundles.old)}
    return load
