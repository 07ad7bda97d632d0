"""A service over several machines: a proxy on each, one replica a worker, Redis behind the head."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ensemble.bundle import load_bundle
from serving.http.keys import add_key
from tests.cluster.nodes.faults import Fault
from tests.cluster.nodes.machines import PYTHON, Machine, Network
from tests.cluster.nodes.rays import Rays, start_rays, wait_until
from tests.servers import PASSWORD, redis
from tests.serving.faults.load import Load
from tests.tiny import tiny_bytes, write_tiny_bundle

PORT = 8000
CLIENTS = 4
FILES = [tiny_bytes(seed) for seed in range(12)]
LOAD = f"{CLIENTS} clients at the proxies of two machines"
APPLICATION = "consilium"


@dataclass
class ServiceSite:
    """The cluster and the service on it.

    Attributes:
        args: of serving.app:build_app, but for the bundle.
    """

    rays: Rays
    folder: Path
    bundle: Path
    keys: dict[str, str]
    args: dict[str, Any]

    @property
    def digest(self) -> str:
        return load_bundle(self.bundle).manifest.digest

    def deploy(self, **args: Any) -> None:
        """`serve deploy` of the service with these args over those before."""
        self.args |= args
        config = self.folder / "serve.json"
        config.write_text(json.dumps(self._document()))
        serve = Path(PYTHON).with_name("serve")
        address = f"http://{self.rays.head.ip}:8265"
        self.rays.head.ask(
            serve, "deploy", config, "--address", address, environment=self.rays.environment
        )

    def details(self) -> dict[str, Any]:
        """What Serve's controller says of proxies and applications; empty while it says nothing."""
        address = f"http://{self.rays.head.ip}:8265/api/serve/applications/"
        token = self.rays.environment["RAY_AUTH_TOKEN"]
        try:
            answer = httpx.get(
                address,
                headers={"authorization": f"Bearer {token}"},
                timeout=10,
                trust_env=False,
            )
            found: dict[str, Any] = answer.json() if answer.is_success else {}
        except (httpx.HTTPError, ValueError):
            return {}
        return found

    def replicas(self) -> dict[str, str]:
        """Node address by replica, of those that run."""
        application = self.details().get("applications", {}).get(APPLICATION, {})
        found = application.get("deployments", {}).get("ensemble", {}).get("replicas", [])
        return {one["replica_id"]: one["node_ip"] for one in found if one["state"] == "RUNNING"}

    def runs(self) -> bool:
        """Whether Serve calls the application running."""
        application = self.details().get("applications", {}).get(APPLICATION, {})
        return bool(application.get("status") == "RUNNING")

    def url(self, machine: Machine) -> str:
        return f"http://{machine.ip}:{PORT}"

    def load(self, machine: Machine) -> Load:
        """Clients of the proxy on one machine."""
        return Load(self.url(machine), FILES, key=self.keys["predict"], pause_s=0.02)

    def answers(self, machine: Machine) -> bool:
        """Whether the proxy of a machine answers by the bundle."""
        headers = {"authorization": f"Bearer {self.keys['predict']}"}
        try:
            found = httpx.get(
                f"{self.url(machine)}/v1/model", headers=headers, timeout=5, trust_env=False
            )
        except httpx.HTTPError:
            return False
        return found.is_success and found.json()["bundle"]["digest"] == self.digest

    def _document(self) -> dict[str, Any]:
        version = {"path": str(self.bundle)}
        deployment = {
            "name": "ensemble",
            "user_config": {"bundles": {"current": version}, "serving": "current"},
        }
        application = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "serving.app:build_app",
            "args": self.args,
            "deployments": [deployment],
        }
        return {
            "proxy_location": "EveryNode",
            "http_options": {"host": "0.0.0.0", "port": PORT, "request_timeout_s": 10},  # noqa: S104
            "applications": [application],
        }


@contextmanager
def service_site(network: Network, folder: Path) -> Iterator[ServiceSite]:
    """Two workers with a replica each, ready; GCS fault tolerance by a real Redis."""
    logs, store = folder / "logs", folder / "redis"
    logs.mkdir()
    store.mkdir()
    bundle = write_tiny_bundle(folder / "bundle")
    keys = {"file": str(folder / "keys.yaml")}
    keys["predict"] = add_key(Path(keys["file"]), "predict", ["predict"])
    with redis(store, network.ip) as address:
        words = [f"--redis-password={PASSWORD}"]
        rays = start_rays(
            network, logs, workers=2, head_words=words, environment=redis_environment(address)
        )
        args = {
            "host": "0.0.0.0",  # noqa: S104
            "port": PORT,
            "keys": keys["file"],
            "min_replicas": 2,
            "max_replicas": 2,
            "explain": None,
            "rate": {"per_minute": 1_000_000, "burst": 100_000},
            "request_timeout_s": 10,
        }
        site = ServiceSite(rays, folder, bundle, keys, args)
        wait_until(lambda: site.details() != {}, seconds=60)
        site.deploy()
        wait_until(lambda: len(site.replicas()) == 2 and site.runs(), seconds=120)
        for worker in rays.workers.values():
            wait_until(lambda worker=worker: site.answers(worker), seconds=60)  # type: ignore[misc]
        yield site


def redis_environment(address: str) -> Mapping[str, str]:
    """What has Ray's head keep its tables in Redis, and its nodes wait for it to come back."""
    return {
        "RAY_REDIS_ADDRESS": address,
        "RAY_external_storage_namespace": "consilium",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "120",
        "RAY_gcs_server_request_timeout_seconds": "10",
    }


@contextmanager
def under_load(site: ServiceSite, *machines: Machine) -> Iterator[list[Load]]:
    """Clients at the proxy of each of these machines; every one has had answers before."""
    loads = [site.load(machine) for machine in machines]
    each = CLIENTS // len(machines)
    with loads[0].going(clients=each):
        if len(loads) == 1:
            loads[0].wait_for(20)
            yield loads
        else:
            with loads[1].going(clients=each):
                for load in loads:
                    load.wait_for(20)
                yield loads


def lose_a_machine(site: ServiceSite) -> Fault:
    """Cut the power of a worker with a replica; another one boots and takes its place."""
    stays, goes = site.rays.workers["w1"], site.rays.workers["w2"]
    with under_load(site, stays) as (load,):
        goes.off()
        off = time.monotonic()
        spare = site.rays.add_worker("w3")
        wait_until(lambda: _on(site, {stays.ip, spare.ip}), seconds=120)
        wait_until(lambda: site.answers(spare), seconds=60)
        recovery = time.monotonic() - off
        load.wait_for(50)
    site.rays.workers = {"w1": stays, "w3": spare}
    lost = 0 if site.answers(stays) else 1
    return Fault(
        "machine lost in the service", LOAD, lost, len(load.bad()), recovery, load.gap(off)
    )


def lose_the_head(site: ServiceSite) -> Fault:
    """Cut the power of the head, and boot one in its place: Redis knows what was."""
    workers = list(site.rays.workers.values())
    with under_load(site, *workers) as loads:
        ip = site.rays.head.ip
        site.rays.head.off()
        off = time.monotonic()
        for load in loads:
            load.wait_for(50)  # without a head
        site.rays.start_head(ip=ip)
        wait_until(lambda: site.runs() and len(site.replicas()) == 2, seconds=180)
        recovery = time.monotonic() - off
        for load in loads:
            load.wait_for(50)
    bad = sum(len(load.bad()) for load in loads)
    lost = sum(not site.answers(worker) for worker in workers)
    gap = max(load.gap(off) for load in loads)
    return Fault("head lost, Redis behind it", LOAD, lost, bad, recovery, gap)


def update_all(site: ServiceSite) -> Fault:
    """A rolling update: other args, so other replicas, one after the other."""
    workers, before = list(site.rays.workers.values()), set(site.replicas())
    with under_load(site, *workers) as loads:
        begin = time.monotonic()
        site.deploy(max_waiting_images=int(site.args.get("max_waiting_images", 64)) + 1)
        wait_until(lambda: _all_new(site, before), seconds=180)
        recovery = time.monotonic() - begin
        for load in loads:
            load.wait_for(50)
    bad = sum(len(load.bad()) for load in loads)
    lost = sum(not site.answers(worker) for worker in workers)
    gap = max(load.gap(begin) for load in loads)
    return Fault("rolling update of every replica", LOAD, lost, bad, recovery, gap)


def _on(site: ServiceSite, addresses: set[str]) -> bool:
    return set(site.replicas().values()) == addresses


def _all_new(site: ServiceSite, before: set[str]) -> bool:
    now = set(site.replicas())
    return len(now) == 2 and not now & before and site.runs()
