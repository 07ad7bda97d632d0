"""A real Ray that serves and searches, its agent, and a real Prometheus that scrapes it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml
from ray import serve
from ray._private.metrics_agent import PrometheusServiceDiscoveryWriter

from search.config import load_config
from search.study.run import run_study
from search.tracking.prometheus import Prometheus
from tests.cluster.manifests.monitoring_names import FOLDER
from tests.experiments import write_experiment
from tests.servers import free_port
from tests.serving.bundles import rebuilt
from tests.serving.faults.conftest import Operator, replicas, serving_ray, wait_until
from tests.tiny import tiny_bytes, write_tiny_bundle

DISCOVERY = "/tmp/ray/prom_metrics_service_discovery.json"  # noqa: S108
IMAGES = 150  # of which the serving bundle gets four in five; drift is told from 100 on


@dataclass(frozen=True)
class Site:
    """What was measured: the names in Ray's own words, and who answers PromQL."""

    names: set[str]
    prometheus: str

    def rows(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        found = self._get("query", query=expression)
        rows: list[dict[str, Any]] = found["result"]
        return rows

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health and its alerts."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **params: str) -> Any:
        address = f"{self.prometheus}/api/v1/{what}"
        answer = httpx.get(address, params=params, trust_env=False, timeout=30)
        assert answer.status_code == 200, f"{params}: {answer.text}"
        return answer.json()["data"]


@contextmanager
def watched_site(folder: Path) -> Iterator[Site]:
    """A service that has answered, a search that has ended, and their numbers in Prometheus."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    experiment = folder / "experiment"
    experiment.mkdir()
    budget = {"trials": 2, "minutes": 30, "gpu_hours": 1}
    fidelity = {"max_epochs": 1, "finalists": 1}
    config = load_config(write_experiment(experiment, budget=budget, fidelity=fidelity))
    gauges = Prometheus(config.name)
    with serving_ray(num_cpus=4):
        discovery = folder / "nodes.json"
        _write_discovery(discovery)
        with _prometheus(folder, discovery) as address:
            url = _serve(folder)
            _ask(url)
            run_study(config, watch=lambda standing, _: gauges.watch(standing))
            _ask(url)
            site = Site(set(), address)
            _wait_for_all(site)
            yield Site(_names(), address)
            gauges.close()


def _serve(folder: Path) -> str:
    """A bundle with a canary beside it, and one that is refused."""
    old = write_tiny_bundle(folder / "old")
    new = rebuilt(folder / "new", old, version="2")
    (folder / "bad").mkdir()
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 30})
    args = {"port": port, "min_replicas": 1, "max_replicas": 1, "explain": {}}
    paths = {"old": old, "new": new, "bad": folder / "bad"}
    Operator(port, args).deploy(
        {
            "bundles": {name: {"path": str(path)} for name, path in paths.items()},
            "serving": "old",
            "canary": {"name": "new", "percent": 20},
        }
    )
    wait_until(lambda: len(replicas()) == 1, seconds=200)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _answers(f"{url}/readyz"), seconds=200)
    return url


def _ask(url: str) -> None:
    with httpx.Client(trust_env=False, timeout=60) as http:
        for seed in range(IMAGES):
            http.post(f"{url}/v1/predict", content=tiny_bytes(seed)).raise_for_status()
        http.post(f"{url}/v1/explain", content=tiny_bytes()).raise_for_status()
        assert http.post(f"{url}/v1/predict", content=b"text").status_code == 415


def _wait_for_all(site: Site) -> None:
    """Until what was asked last, and what the search ended with, can be queried."""
    both = "sum(ray_consilium_classes_total)", "sum(ray_consilium_search_ended_total)"
    wait_until(
        lambda: all(_value(site, one) >= n for one, n in zip(both, (2 * IMAGES, 2), strict=True)),
        seconds=300,
    )
    wait_until(lambda: bool(site.rows("rate(ray_consilium_classes_total[1m]) > 0")), seconds=120)


def _value(site: Site, expression: str) -> float:
    return float(next((row["value"][1] for row in site.rows(expression)), 0))


def _write_discovery(path: Path) -> None:
    """As Ray's dashboard does it."""
    address = ray.get_runtime_context().gcs_address
    writer = PrometheusServiceDiscoveryWriter(address, str(path.parent))
    path.write_text(writer.get_file_discovery_content())  # type: ignore[no-untyped-call]


@contextmanager
def _prometheus(folder: Path, discovery: Path) -> Iterator[str]:
    """The config that is shipped, with the path of this Ray's file, and quicker."""
    config = yaml.safe_load(
        (FOLDER / "prometheus.yaml").read_text().replace(DISCOVERY, str(discovery))
    )
    config["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    config["rule_files"] = [str(FOLDER / "alerts.yaml")]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _answers(f"http://{address}/-/ready"), seconds=30)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)


def _names() -> set[str]:
    """Of all series that Ray's agent shows."""
    [node] = ray.nodes()  # type: ignore[no-untyped-call]
    address = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    lines = httpx.get(address, trust_env=False, timeout=30).text.splitlines()
    return {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.HTTPError:
        return False
