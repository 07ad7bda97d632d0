"""What is killed while a study goes on: nothing is lost, nothing is done twice."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from search.config import ExperimentConfig
from search.study.records import StudyFolder, TrialRecord
from search.study.run import run_study
from tests.rays import started_ray
from tests.search.study.nothing_lost import check_nothing_lost, count_ended
from tests.search.study.test_run import a_study

pytestmark = pytest.mark.slow
TRIALS = 6
PATIENCE = 120.0  # seconds that a test waits for what it needs


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Unix sockets bear 107 characters: Ray's folder must be short."""
    folder = Path(tempfile.mkdtemp(prefix="c"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def a_long_study(folder: Path) -> ExperimentConfig:
    """Trials of a second or two."""
    fidelity = {"max_epochs": 24, "grace": 8, "reduction": 3, "finalists": 1}
    return a_study(folder, trials=TRIALS, fidelity=fidelity)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not come"
        time.sleep(0.05)


def ended_and_training(config: ExperimentConfig) -> bool:
    """Whether a trial has ended and another one is under way."""
    folder = StudyFolder(config.study_folder)
    if not (config.output / "study" / "trials").exists():
        return False
    states = Counter(record.status for record in folder.records())
    return states["complete"] + states["pruned"] >= 1 and states["running"] >= 1


def running(config: ExperimentConfig) -> TrialRecord:
    """A trial that has had an epoch and is under way."""
    found: list[TrialRecord] = []

    def look() -> bool:
        if ended_and_training(config):
            records = StudyFolder(config.study_folder).records()
            found.extend(r for r in records if r.status == "running" and r.epochs)
        return bool(found)

    wait_for(look)
    return found[0]


def test_a_driver_that_is_killed_goes_on_where_it_was(tmp_path: Path, short_folder: Path) -> None:
    config = a_long_study(tmp_path)
    document = tmp_path / "config.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    command = "from cluster.cli import main; main()"
    words = [sys.executable, "-c", command, "search", str(document), "--json"]
    surroundings = {**os.environ, "TMPDIR": str(short_folder), "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(words, env=surroundings, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: killed.poll() is None and ended_and_training(config))
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    ended = count_ended(config)
    assert 1 <= ended < TRIALS
    again = subprocess.run(
        words, check=False, env=surroundings, capture_output=True, text=True, timeout=240
    )
    assert again.returncode == 0, again.stderr
    check_nothing_lost(config, trials=TRIALS)


def test_a_worker_that_is_killed_loses_its_trial_to_another(tmp_path: Path) -> None:
    config = a_long_study(tmp_path)
    with started_ray(num_cpus=2):
        victims: list[int] = []

        def kill() -> None:
            record = running(config)
            victims.append(record.number)
            os.kill(int((record.worker or "").rpartition(":")[2]), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        run_study(config)
        killer.join()
    check_nothing_lost(config, trials=TRIALS)
    victim = StudyFolder(config.study_folder).record(victims[0])
    assert (victim.status, victim.error, victim.again) == ("failed", "the worker died", True)


def test_a_node_that_is_lost_loses_no_trial(tmp_path: Path, short_folder: Path) -> None:
    config = a_long_study(tmp_path)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": str(short_folder)},
    )
    try:
        node = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        lost: list[str] = []

        def kill() -> None:
            wait_for(lambda: ended_and_training(config))
            cluster.remove_node(node, allow_graceful=False)
            lost.append("node")

        killer = threading.Thread(target=kill)
        killer.start()
        run_study(config)
        killer.join()
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert lost == ["node"]
    check_nothing_lost(config, trials=TRIALS)
