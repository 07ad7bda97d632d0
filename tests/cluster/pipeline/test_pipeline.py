"""The whole pipeline by the command, on a real Ray with a real service, under load."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from ensemble.bundle import load_bundle
from search.data.synthetic import write_dataset
from search.study.records import StudyFolder
from search.study.sealed import count_openings
from serving.client import Client
from serving.config import ServingConfig
from serving.http.keys import add_key
from serving.start import start_service
from tests.experiments import DOCUMENT, write_experiment
from tests.servers import free_port
from tests.serving.faults.conftest import serving_ray
from tests.serving.faults.load import Load

pytestmark = pytest.mark.slow
N_IMAGES = 160  # with fewer the sealed test has too few malignant lesions for a bound


@dataclass
class Place:
    """An experiment, and the Ray that it is searched and served on."""

    config: Path
    address: str
    key: str = ""

    @property
    def out(self) -> Path:
        return self.config.parent / "out"

    @property
    def files(self) -> list[bytes]:
        paths = sorted((self.config.parent / "data" / "images").glob("*.jpg"))
        return [path.read_bytes() for path in paths]

    def write(self, **changes: Any) -> None:
        document = yaml.safe_load(self.config.read_text())
        self.config.write_text(yaml.safe_dump(document | changes))

    def run(self, *words: str) -> tuple[int, dict[str, Any], str]:
        """The command in a process of its own: exit code, its JSON, stderr."""
        command = [sys.executable, "-m", "cluster", "pipeline", str(self.config), "--json"]
        done = subprocess.run(
            [*command, "--address", self.address, *words],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            env={**os.environ, "CONSILIUM_API_KEY": self.key},
        )
        assert done.stdout.startswith("{"), done.stderr[-2000:]
        assert not self.key or self.key not in done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr


def statuses(found: dict[str, Any]) -> list[str]:
    return [step["status"] for step in found["steps"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("pipeline")
    write_dataset(folder / "data", n_images=N_IMAGES, size=32, difficulty=0)
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(DOCUMENT))
    with serving_ray(num_cpus=2):
        yield Place(config, ray.get_runtime_context().gcs_address)


@pytest.mark.timeout(3600)
def test_from_a_first_bundle_to_one_promoted_under_load_and_one_refused(place: Place) -> None:
    rules: dict[str, Any] = {"gate": [{"metric": "nll", "margin": 2.0}], "min_images": 10}
    place.write(pipeline=rules)
    code, first, _ = place.run()
    assert (code, statuses(first)) == (0, ["done", "done", "skipped", "done", "skipped"])
    assert first["steps"][3]["why"] == "the first bundle: nothing to compare with"

    # Its bundle folder is written anew by the next build: what is served is a copy.
    from cluster.pipeline.release import release

    old = release(load_bundle(place.out / "bundle"), place.out / "releases")
    keys = place.config.parent / "keys"
    place.key = add_key(keys, "deployer", ["admin"])
    service = ServingConfig(
        bundle=old.folder,
        port=free_port(),
        keys=keys,
        rate=None,
        bundle_root=place.out / "releases",
        max_replicas=1,
        explain=None,
    )
    url = start_service(service)
    canary = {"percent": 50, "images": 40, "minutes": 3, "disagreement": 0.95}
    other = write_experiment(place.config.parent / "other", name="other")
    rules |= {"service": url, "canary": canary, "evaluate": [str(other)]}
    place.write(pipeline=rules, budget={"trials": 5})
    load = Load(url, place.files, key=place.key, pause_s=0.02)
    with load.going(clients=2):
        code, second, said = place.run()
    assert (code, second["error"]) == (0, None), said
    assert statuses(second) == ["done"] * 5
    assert second["steps"][2]["outcome"]["other"]["images"] > 0
    assert second["steps"][3]["outcome"]["serving"] == old.manifest.digest
    assert second["steps"][4]["why"].startswith("promoted: ")
    assert load.bad() == []
    new = load_bundle(place.out / "bundle").manifest.digest
    assert set(load.digests()) == {old.manifest.digest, new}
    with Client(url, api_key=place.key) as client:
        assert client.model().bundle.digest == new

    code, third, _ = place.run()
    assert (code, statuses(third)) == (0, ["skipped"] * 5)
    assert count_openings(StudyFolder(place.out / "study")) == 3  # two builds, one gate

    # A point that calls nothing positive misses all that the serving bundle finds.
    blind = DOCUMENT["ensemble"] | {"operating_points": {"blind": {"threshold": 1.0}}}
    strict = {"gate": [{"metric": "sensitivity", "margin": 0.1}]}
    place.write(pipeline=rules | strict, ensemble=blind)
    code, fourth, said = place.run()
    assert (code, statuses(fourth)[-1]) == (1, "failed"), said
    assert fourth["steps"][-1]["step"] == "gate"
    assert "gate: sensitivity 0.0000 against" in fourth["error"]
    assert "over the margin of 0.1" in fourth["error"]
    with Client(url, api_key=place.key) as client:
        assert client.model().bundle.digest == new
        assert client.rollout().rollout.canary is None
