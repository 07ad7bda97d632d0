"""The command `consilium sites`: what it refuses, and one short look with a Ray of its own."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cluster import cli
from ensemble.config import ensemble_config
from ensemble.sites import tasks
from ensemble.sites.plan import plan_sites
from search.config import ExperimentConfig
from search.errors import StudyError
from search.study.records import StudyFolder
from tests.cluster.refusals import refusal
from tests.ensemble.studies import write_study
from tests.rays import started_ray


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    folder = tmp_path_factory.mktemp("study")
    return write_study(folder, n_trials=1, finalists=0, folds=2)


@pytest.fixture(scope="module")
def path(study: ExperimentConfig) -> Path:
    """The study's YAML, beside which its out/ lies."""
    return study.output.parent / "tiny.yaml"


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[..., AbstractContextManager[None]]]:
    """A Ray for the tests that train; what stands in for the connection to it."""
    with started_ray(num_cpus=2):
        yield lambda *_, **__: nullcontext()


def test_a_config_without_a_study(capsys: pytest.CaptureFixture[str], experiment: Path) -> None:
    assert "no study here; run consilium search first" in refusal(capsys, "sites", experiment)


def test_a_column_that_is_not_there(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    line = refusal(capsys, "sites", path, "--by", "hospital")
    assert "--by hospital: the images have no such column; there are" in line


def test_a_trial_that_is_not_there(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    assert "trial 9 is not there; finished are 0" in refusal(capsys, "sites", path, "--trial", "9")


def test_sites_that_are_all_too_small(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    line = refusal(capsys, "sites", path, "--min-cases", "500")
    assert "leaving sites out takes two with 500 images" in line
    assert "back " in line
    assert not (path.parent / "out" / "sites").exists()


def test_another_config_than_the_studys(
    capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    document = yaml.safe_load(path.read_text())
    document |= {"seed": 5, "study": str(path.parent / "out" / "study")}
    document["dataset"]["sources"][0]["table"] = str(path.parent / "data" / "diagnoses.csv")
    document["dataset"]["sources"][0]["images"] = [str(path.parent / "data" / "images")]
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(document))
    assert "of another config: seed 0, now 5" in refusal(capsys, "sites", other)


@pytest.mark.slow
def test_sites_are_left_out_and_a_rerun_needs_no_ray(
    capsys: pytest.CaptureFixture[str],
    path: Path,
    study: ExperimentConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    started: Callable[..., AbstractContextManager[None]],
) -> None:
    monkeypatch.setattr("cluster.connect.connected", started)
    sealed = StudyFolder(study.study_folder).path / "sealed"
    before = sorted(file.name for file in sealed.iterdir())
    words = ["sites", str(path), "--by", "sex", "--min-cases", "10", "--json"]
    words += ["--output", str(tmp_path)]
    cli.main(words)
    found = json.loads(capsys.readouterr().out)
    assert [s["site"] for s in found["sites"]] == ["female", "male"]
    assert Path(found["page"]).is_file()
    assert sorted(file.name for file in (tmp_path / "sites").iterdir()) == [
        *("female.json", "female.parquet", "male.json", "male.parquet")
    ]
    assert sorted(file.name for file in sealed.iterdir()) == before

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("cluster.connect.connected", fail)
    monkeypatch.setattr(tasks, "_train_all", fail)
    cli.main(words)
    assert json.loads(capsys.readouterr().out) == found
    cli.main([word for word in words if word != "--json"])
    printed = capsys.readouterr()
    assert "worst of sites" in printed.out
    assert "images of unknown sex: always among the others" in printed.err


@pytest.mark.slow
def test_a_training_that_fails_is_one_line(
    study: ExperimentConfig, path: Path, tmp_path: Path, started: object
) -> None:
    plan = plan_sites(study, ensemble_config(path, study), by="sex", min_cases=10)
    params = plan.record.params.model_copy(update={"lr": 1e9})
    bad = replace(plan, record=plan.record.model_copy(update={"params": params}))
    with pytest.raises(StudyError, match=r"^site '.*male': .* missing$"):
        tasks.evaluate_sites(bad, tmp_path)
