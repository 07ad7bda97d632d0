"""A search over several machines, with its study on S3 and its storage on PostgreSQL."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from search.config import ExperimentConfig
from search.study.queue import again_of
from search.study.records import StudyFolder, TrialRecord
from tests.cluster.nodes.faults import Fault
from tests.cluster.nodes.machines import PYTHON, Machine, Network
from tests.cluster.nodes.rays import Rays, start_rays, wait_until
from tests.search.study.nothing_lost import count_ended, opened_study
from tests.search.study.test_run import a_study
from tests.servers import PASSWORD, s3_environment

TRIALS = 10
FIDELITY = {"max_epochs": 60, "grace": 20, "reduction": 3, "finalists": 1}
LOAD = f"a search of {TRIALS} trials on two machines"
ALONE = f"a search of {TRIALS} trials on one machine"
PATIENCE = 180.0  # seconds


@dataclass
class SearchSite:
    """The cluster, and the study that goes on there.

    Attributes:
        environment: of the search's driver, which runs on the head.
    """

    rays: Rays
    config: ExperimentConfig
    document: Path
    environment: dict[str, str]
    drivers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def network(self) -> Network:
        return self.rays.network

    def search(self) -> "subprocess.Popen[bytes]":
        """Begin the search, or go on with it, on the head."""
        words = ["-m", "cluster", "search", str(self.document), "--quiet"]
        log = self.rays.logs / f"{self.config.name}.driver.log"
        place = {"RAY_ADDRESS": self.rays.address}
        self.drivers.append(
            self.rays.head.start(PYTHON, *words, environment=self.environment | place, log=log)
        )
        return self.drivers[-1]

    def records(self) -> list[TrialRecord]:
        """Of the trials that have begun; none before the study has."""
        folder = StudyFolder(self.config.study_folder)
        return folder.records() if folder.exists() else []

    def records_of_a_live_driver(self) -> list[TrialRecord]:
        """The same, where waiting for more of them makes sense."""
        assert self.drivers[-1].poll() in (None, 0), self.said()
        return self.records()

    def training(self) -> TrialRecord:
        """A trial that has had an epoch and is under way, once another one has ended."""
        found: list[TrialRecord] = []

        def look() -> bool:
            records = self.records_of_a_live_driver()
            ended = any(r.status in ("complete", "pruned") for r in records)
            found.extend(r for r in records if ended and r.status == "running" and r.epochs)
            return bool(found)

        wait_until(look, seconds=PATIENCE)
        return found[0]

    def machine_of(self, record: TrialRecord) -> Machine:
        """Where a trial trains."""
        return self.network.machines[(record.worker or "").rpartition(":")[0]]

    def ended(self) -> int:
        """Trials that have ended and count."""
        return count_ended(self.config)

    def finish(self) -> None:
        """Wait until the search is done."""
        assert self.drivers[-1].wait(PATIENCE) == 0, self.said()

    def lost(self) -> int:
        """Trials that were asked for and are not there, or are there twice."""
        with opened_study(self.config) as study:
            again = again_of(study)
            counted = [t for t in study.get_trials(deepcopy=False) if t.number not in again]
        params = {yaml.safe_dump(trial.user_attrs["params"]) for trial in counted}
        return abs(TRIALS - len(counted)) + len(counted) - len(params)

    def said(self) -> str:
        """The end of the driver's messages."""
        return (self.rays.logs / f"{self.config.name}.driver.log").read_text()[-3000:]


@contextmanager
def search_site(
    network: Network, folder: Path, *, bucket: str, storage: str, workers: int = 2
) -> Iterator[SearchSite]:
    """A cluster on which nothing runs yet.

    Args:
        bucket: URL of a bucket whose server is in this process's environment.
        storage: PostgreSQL's URL with its password, which goes into the environment only.
    """
    logs = folder / "logs"
    logs.mkdir()
    s3 = s3_environment(os.environ["AWS_ENDPOINT_URL"])
    rays = start_rays(network, logs, workers=workers, environment=s3)
    parts = urlsplit(storage)
    bare = storage.replace(f":{PASSWORD}@", "@")
    config = a_study(
        folder,
        trials=TRIALS,
        study=f"{bucket}/{folder.name}",
        storage=bare,
        cache=str(network.local / "cache"),
        fidelity=FIDELITY,
    )
    document = folder / "config.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    password = {"PGPASSWORD": str(parts.password)}
    yield SearchSite(rays, config, document, rays.environment | password)


def lose_a_machine(site: SearchSite) -> Fault:
    """Cut the power of the only machine that trains, and boot another one in its place."""
    site.search()
    lost = site.training()
    site.machine_of(lost).off()
    off = time.monotonic()
    site.rays.add_worker("spare")
    wait_until(lambda: _again(site, lost), seconds=PATIENCE)
    recovery = time.monotonic() - off
    site.finish()
    return Fault("machine lost in the search", ALONE, site.lost(), 0, recovery)


def kill_the_driver(site: SearchSite) -> Fault:
    """SIGKILL for the search's driver; the same command again."""
    driver = site.search()
    ended = _mid_way(site)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    off = time.monotonic()
    before = {r.number for r in site.records()}
    site.search()
    wait_until(lambda: _any_new(site, before), seconds=PATIENCE)
    recovery = time.monotonic() - off
    site.finish()
    assert ended < TRIALS
    return Fault("the search's driver killed, given again", LOAD, site.lost(), 1, recovery)


def lose_the_head(site: SearchSite) -> Fault:
    """Cut the power of the head, on which the driver runs, too; boot all anew and search again."""
    site.search()
    _mid_way(site)
    ip, before = site.rays.head.ip, {r.number for r in site.records()}
    site.rays.head.off()
    off = time.monotonic()
    for worker in site.rays.workers.values():
        if worker.first.poll() is None:
            worker.off()
    site.rays.start_head(ip=ip)
    site.rays.add_worker("w8")
    site.rays.add_worker("w9")
    site.rays.wait_for_nodes(3)
    site.search()
    wait_until(lambda: _any_new(site, before), seconds=PATIENCE)
    recovery = time.monotonic() - off
    site.finish()
    return Fault("head lost without a Redis, all booted anew", LOAD, site.lost(), 1, recovery)


def _mid_way(site: SearchSite) -> int:
    """Trials that have ended, once there are some and another one trains."""
    site.training()
    return site.ended()


def _again(site: SearchSite, lost: TrialRecord) -> bool:
    """Whether the params of a lost trial train elsewhere."""
    return any(
        r.number != lost.number and r.params == lost.params and r.epochs
        for r in site.records_of_a_live_driver()
    )


def _any_new(site: SearchSite, before: set[int]) -> bool:
    return any(r.number not in before and r.epochs for r in site.records_of_a_live_driver())
