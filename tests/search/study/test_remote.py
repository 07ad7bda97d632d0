"""A whole study with its folder behind an S3 API and its storage on PostgreSQL."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.config import ExperimentConfig
from search.errors import StudyError
from search.location import open_place
from search.report.page import write_study_report
from search.study.records import StudyFolder
from search.study.run import earlier_study, run_study
from tests.rays import started_ray
from tests.search.study.test_run import a_study, counted
from tests.servers import PASSWORD, postgres, s3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3() as url, started_ray(num_cpus=2):  # Ray's workers inherit the endpoint
        yield url


@pytest.fixture(scope="module")
def server(bucket: str) -> Iterator[str]:
    with postgres() as url:
        yield url


def a_remote_study(folder: Path, place: str, storage: str, *, trials: int) -> ExperimentConfig:
    fidelity = {"max_epochs": 4, "reduction": 2, "finalists": 1}
    return a_study(folder, trials=trials, study=place, storage=storage, fidelity=fidelity)


def test_a_study_lives_behind_s3_and_postgresql_and_goes_on(
    tmp_path: Path, bucket: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/tiny"
    run_study(a_remote_study(tmp_path, place, server, trials=3))
    study = run_study(a_remote_study(tmp_path, place, server, trials=4))
    assert str(study.path) == place
    assert [record.number for record in counted(study)] == [0, 1, 2, 3]
    assert {record.status for record in counted(study)} <= {"complete", "pruned"}
    assert sum(study.disk_use().values()) > 0
    assert len(study.kept_weights()) <= 3  # the best two and the recipe
    best = min(counted(study), key=lambda record: record.value or 9)
    images = study.open_images()
    assert len(study.oof_probs(best.number)) == (images["part"] == "train").sum()
    assert PASSWORD not in (study.path / "config.yaml").read_text()
    assert not (tmp_path / "out" / "study").exists()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)  # which is not written down
    with earlier_study(study) as known:
        write_study_report(study.path / "report.html", study, known)
    assert "tiny" in (study.path / "report.html").read_text()


def test_a_bucket_that_is_missing_is_said_before_any_work(tmp_path: Path, server: str) -> None:
    config = a_remote_study(tmp_path, "s3://nowhere/tiny", server, trials=1)
    with pytest.raises(StudyError, match=r"s3://nowhere/tiny.*: there is no such bucket; create"):
        run_study(config)


def test_a_database_that_is_away_is_said_before_any_work(tmp_path: Path) -> None:
    storage = "postgresql://someone@127.0.0.1:9/studies"
    config = a_study(tmp_path, trials=1, storage=storage)
    with pytest.raises(StudyError, match=r"127.0.0.1:9/studies"):
        run_study(config)
    assert not (config.output / "study" / "study.json").exists()


def test_a_local_study_warms_up_one_elsewhere(tmp_path: Path, bucket: str, server: str) -> None:
    earlier = run_study(a_study(tmp_path, trials=2))
    said: list[str] = []
    config = a_remote_study(tmp_path, f"{bucket}/warm", server, trials=2)
    study = run_study(config, warm=[earlier], say=said.append)
    assert said[0] == f"{earlier.path}: 1 trials added"
    assert said[1].startswith(f"{earlier.path}: trial 0 left out: ")  # the recipe
    assert [record.number for record in counted(study)] == [0, 2]
    assert StudyFolder(open_place(f"{bucket}/warm")).exists()
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
