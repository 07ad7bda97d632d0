"""Jobs on a real head with token authentication: sent, followed, stopped, sent again."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.pipeline.state import read_state
from ensemble.bundle import load_bundle
from search.config import ExperimentConfig, load_config
from search.study.records import StudyFolder
from tests.cluster.jobs.heads import Head, started_head
from tests.experiments import write_experiment
from tests.search.study.nothing_lost import check_nothing_lost
from tests.search.study.test_faults import ended_and_training
from tests.search.study.test_run import a_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # whole searches, on a busy machine
TRIALS = 6


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with started_head() as started:
        yield started


@pytest.fixture(scope="module")
def searched(head: Head, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An experiment whose search has been followed to its end, and that job's row."""
    path = write_experiment(tmp_path_factory.mktemp("experiment"))
    done = head.consilium("submit", path, "--env", "LEVEL", "--json", LEVEL="3")
    assert done.returncode == 0, done.stderr
    assert " trial 2 " in done.stderr  # the log, while it went on
    assert f"must see these folders: {path.parent}/data, {path.parent}/out" in done.stderr
    return path, json.loads(done.stdout)


def ended(path: Path) -> int:
    """Trials that came to an end of their own; ASHA may have stopped some."""
    records = StudyFolder(load_config(path).study_folder).records()
    return sum(record.status in ("complete", "pruned") for record in records)


def test_a_search_is_sent_and_followed_to_its_end(searched: tuple[Path, dict[str, Any]]) -> None:
    path, row = searched
    assert ended(path) == 3
    assert re.fullmatch(r"consilium-search-tiny-[0-9a-f]{6}", row["id"])
    assert (row["step"], row["experiment"], row["status"]) == ("search", "tiny", "succeeded")
    assert (path.parent / "out" / "study" / "report.html").exists()


def test_sent_again_it_does_nothing_twice(
    head: Head, searched: tuple[Path, dict[str, Any]]
) -> None:
    path, row = searched
    records = {p: p.stat().st_mtime_ns for p in path.parent.glob("out/study/trials/*/record.json")}
    assert len(records) == 3
    again = head.consilium("submit", path, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["id"] != row["id"]
    assert {p: p.stat().st_mtime_ns for p in records} == records
    assert ended(path) == 3


def test_a_job_says_nothing_of_this_machine(
    head: Head, searched: tuple[Path, dict[str, Any]]
) -> None:
    about = head.get(f"/api/jobs/{searched[1]['id']}")
    assert about["entrypoint"] == "exec python -m cluster search experiment.yaml"
    assert set(about["metadata"]) >= {"consilium_step", "experiment", "study", "output", "config"}
    variables = set(about["runtime_env"]["env_vars"])
    assert {name for name in variables if not name.startswith("MALLOC_")} == {"LEVEL"}
    assert about["runtime_env"]["working_dir"].startswith("gcs://_ray_pkg_")


def test_the_log_and_the_table(head: Head, searched: tuple[Path, dict[str, Any]]) -> None:
    job_id = searched[1]["id"]
    log = head.consilium("logs", job_id)
    assert (log.returncode, " trial 2 " in log.stdout) == (0, True)
    followed = head.consilium("logs", job_id, "-f")
    assert (followed.returncode, followed.stdout) == (0, log.stdout)
    table = head.consilium("status")
    assert job_id in table.stdout
    assert "succeeded" in table.stdout
    assert json.loads(head.consilium("status", job_id, "--json").stdout) == searched[1]
    assert json.loads(head.consilium("stop", job_id, "--json").stdout) == searched[1]


def test_an_ensemble_and_then_a_pipeline_go_on_from_what_was_searched(
    head: Head, searched: tuple[Path, dict[str, Any]]
) -> None:
    path, out = searched[0], searched[0].parent / "out"
    built = head.consilium("submit", path, "--step", "ensemble", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["step"] == "ensemble"
    assert load_bundle(out / "bundle").manifest.name == "tiny"
    states = []
    for _ in range(2):
        done = head.consilium("submit", path, "--step", "pipeline")
        assert done.returncode == 0, done.stderr
        states.append(read_state(out).steps)
    first, second = states
    assert {name: step.status for name, step in first.items()} == dict.fromkeys(first, "done")
    assert set(first) >= {"search", "ensemble", "gate"}
    assert second == first  # all of it was skipped
    assert ended(path) == 3


def test_a_search_that_is_stopped_goes_on_when_it_is_sent_again(head: Head, tmp_path: Path) -> None:
    fidelity = {"max_epochs": 60, "grace": 20, "reduction": 3, "finalists": 1}
    config = a_study(tmp_path, trials=TRIALS, fidelity=fidelity)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    sent = head.consilium("submit", path, "--no-wait", "--json")
    job_id = json.loads(sent.stdout)["id"]
    for step in ("search", "pipeline"):  # while Ray starts the job
        refused = head.consilium("submit", path, "--step", step)
        assert refused.returncode == 2
        assert f"{job_id} is at work on this study" in refused.stderr
        assert f"consilium stop {job_id} stops it" in refused.stderr
    while not ended_and_training(config):
        job = head.get(f"/api/jobs/{job_id}")
        assert job["status"] in ("PENDING", "RUNNING"), job["message"]
        time.sleep(0.1)
    stopped = head.consilium("stop", job_id, "--json")
    assert json.loads(stopped.stdout)["status"] == "stopped"
    check_stands_still(config)
    assert head.consilium("logs", job_id, "-f").returncode == 1
    again = head.consilium("submit", path, "--json")
    assert again.returncode == 0, again.stderr
    check_nothing_lost(config, trials=TRIALS)


def check_stands_still(config: ExperimentConfig) -> None:
    """The study is not done, and nothing of the job that was stopped works on it."""
    trials = config.output / "study" / "trials"

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in trials.rglob("*")}

    before = state()
    time.sleep(3)
    assert state() == before
    assert len(list(StudyFolder(config.study_folder).records())) <= TRIALS


def test_a_job_that_fails_says_why_and_shows_no_password(head: Head, tmp_path: Path) -> None:
    storage = "postgresql://ada:open-sesame@127.0.0.1:9/studies"
    path = write_experiment(tmp_path, name="lost", storage=storage)
    failed = head.consilium("submit", path, PGPASSWORD="open-sesame")
    assert failed.returncode == 1
    last = failed.stderr.splitlines()[-1]
    assert re.search(r"consilium-search-lost-\w{6} failed: consilium: postgresql://ada@127", last)
    assert "mend it and submit it again to go on" in last
    job_id = next(word for word in last.split() if word.startswith("consilium-search"))
    assert "open-sesame" not in failed.stdout + failed.stderr
    assert "open-sesame" not in json.dumps(head.get(f"/api/jobs/{job_id}"))
    assert "open-sesame" not in head.consilium("logs", job_id).stdout


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's"),
        ("f" * 64, "refuses the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
    ],
    ids=["none", "wrong"],
)
def test_whoever_lacks_the_token_learns_nothing(
    head: Head, token: str | None, message: str
) -> None:
    refused = head.consilium("status", token=token)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"consilium: {head.address}: {message}")
    assert len(refused.stderr.splitlines()) == 1


def test_an_unknown_job(head: Head) -> None:
    for command in ("status", "logs", "stop"):
        refused = head.consilium(command, "consilium-search-tiny-000000")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "knows no job 'consilium-search-tiny-000000' of consilium submit" in refused.stderr
