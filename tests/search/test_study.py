"""A real study on a real Ray: pruned means pruned, a rerun goes on, another config is refused."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import ray
from filelock import FileLock
from optuna.trial import TrialState

from search.config import ExperimentConfig
from search.errors import StudyError, TrainingError
from search.records import StudyFolder, TrialRecord
from search.study import run_study
from tests.search.test_intake import an_experiment

SPACE = {
    "backbone": "cnn",
    "image_size": 16,
    "hidden": 4,
    "batch_size": 8,
    "lr": {"low": 1e-5, "high": 1e-2, "log": True},
}
PORTFOLIO = {"recipes": ["custom_cnn"], "override": {"image_size": 16, "hidden": 4}}


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="ray")  # short: Unix sockets bear 107 characters
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentConfig, StudyFolder]:
    config = a_study(tmp_path_factory.mktemp("study"), trials=5)
    return config, run_study(config)


def a_study(folder: Path, *, trials: int, **changes: object) -> ExperimentConfig:
    return an_experiment(
        folder,
        space=SPACE,
        portfolio=PORTFOLIO,
        fidelity={"max_epochs": 4, "reduction": 2},
        budget={"trials": trials, "keep_weights": 2},
        **changes,
    )


def the_trials(study: StudyFolder) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="tiny", storage=study.storage_url).trials


def test_every_trial_ends_and_none_is_left_running(
    finished: tuple[ExperimentConfig, StudyFolder],
) -> None:
    states = [trial.state for trial in the_trials(finished[1])]
    assert len(states) == 5
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert TrialState.COMPLETE in states


def test_a_stopped_trial_is_pruned_with_its_values(
    finished: tuple[ExperimentConfig, StudyFolder],
) -> None:
    records = {record.number: record for record in finished[1].records()}
    for trial in the_trials(finished[1]):
        record = records[trial.number]
        assert record.status == {"COMPLETE": "complete", "PRUNED": "pruned"}[trial.state.name]
        assert len(record.epochs) == len(trial.intermediate_values)
        assert (len(record.epochs) == 4) == (record.status == "complete")
        if trial.state == TrialState.COMPLETE:
            assert trial.value == record.value == min(e["nll"] or 9 for e in record.epochs)


def test_the_recipe_is_the_first_trial(finished: tuple[ExperimentConfig, StudyFolder]) -> None:
    first, *others = finished[1].records()
    assert first.recipe == "custom_cnn"
    assert first.params.optimizer == "adam"
    assert {record.recipe for record in others} == {None}


def test_probabilities_stay_for_every_trial_and_weights_for_the_best(
    finished: tuple[ExperimentConfig, StudyFolder],
) -> None:
    study = finished[1]
    records = study.records()
    classes = study.head().classes
    for record in records:
        assert study.probs(record.number)[classes].sum(axis=1).to_numpy() == pytest.approx(1)
    ranked = sorted(records, key=lambda r: r.value or 9)
    kept = {record.number for record in records if study.has_weights(record.number)}
    assert kept == {ranked[0].number, ranked[1].number, 0}


def test_a_rerun_of_a_finished_study_trains_nothing(
    finished: tuple[ExperimentConfig, StudyFolder],
) -> None:
    config, study = finished
    before = study.records()
    ended: list[TrialRecord] = []
    run_study(config, ended=lambda record, done: ended.append(record))
    assert ended == []
    assert study.records() == before


def test_a_larger_budget_goes_on(finished: tuple[ExperimentConfig, StudyFolder]) -> None:
    config, study = finished
    budget = config.budget.model_copy(update={"trials": 6})
    ended: list[int] = []
    run_study(
        config.model_copy(update={"budget": budget}),
        ended=lambda record, done: ended.append(record.number),
    )
    assert ended == [5]
    assert len(the_trials(study)) == 6


def test_a_trial_that_a_kill_left_running_is_done_again(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=2)
    study = run_study(config)
    optuna_study = optuna.load_study(study_name="tiny", storage=study.storage_url)
    killed = optuna_study.ask({"lr": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)})
    run_study(a_study(tmp_path, trials=3))
    last = the_trials(study)[-1]
    assert the_trials(study)[killed.number].state == TrialState.FAIL
    assert last.params == killed.params
    assert last.user_attrs["resume_of"] == killed.number
    assert len([t for t in the_trials(study) if t.state != TrialState.FAIL]) == 3
    assert study.record(killed.number).error == "the search was stopped; done again"


def test_another_experiment_in_the_same_folder_is_refused(
    finished: tuple[ExperimentConfig, StudyFolder],
) -> None:
    config = finished[0].model_copy(update={"objective": "auroc"})
    with pytest.raises(StudyError, match=r"another objective \(nll, now auroc\); choose another"):
        run_study(config)


def test_weights_that_are_missing_are_said_before_the_first_trial(tmp_path: Path) -> None:
    config = an_experiment(
        tmp_path,
        space={"backbone": "mobilenetv2_035", "weights": "folder", "image_size": 32},
        weights={"folder": str(tmp_path)},
        portfolio={"recipes": []},
    )
    with pytest.raises(TrainingError, match=r"mobilenetv2_035.safetensors is missing"):
        run_study(config)


def test_trials_that_failed_by_their_surroundings_are_done_again(tmp_path: Path) -> None:
    config = an_experiment(
        tmp_path,
        space=SPACE,
        portfolio={"recipes": []},
        fidelity={"max_epochs": 1},
        budget={"trials": 2},
        cache=str(tmp_path / "cache"),
    )
    (tmp_path / "cache").write_text("a file stands here")
    with pytest.raises(StudyError, match=r"cache cannot be written .*; mend it and run the same"):
        run_study(config)
    (tmp_path / "cache").unlink()
    study = run_study(config)
    records = study.records()
    assert [r.status for r in records if not r.again] == ["complete"] * 2
    assert {r.status for r in records if r.again} == {"failed"}
    failed, done = ({r.params.lr for r in records if r.again == again} for again in (True, False))
    assert failed <= done


def test_a_second_search_on_the_same_study_is_refused(
    finished: tuple[ExperimentConfig, StudyFolder],
) -> None:
    config, study = finished
    with (
        FileLock(study.path / "lock"),
        pytest.raises(StudyError, match="another search works on this study"),
    ):
        run_study(config)


def test_an_error_of_the_driver_comes_through_as_itself(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=2)

    def full(record: TrialRecord, done: int) -> None:
        raise OSError(28, "No space left on device", "record.json")

    with pytest.raises(OSError, match="No space left"):
        run_study(config, ended=full)
    study = run_study(config)
    assert {record.status for record in study.records()} <= {"complete", "pruned", "failed"}
    done = [t for t in the_trials(study) if t.state != TrialState.FAIL]
    assert len(done) == 2


def test_more_cpus_than_there_are_is_said_at_once(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=1, resources={"cpu": 64})
    with pytest.raises(StudyError, match="a trial needs 64 CPUs and 0 GPUs, Ray has 2 and 0"):
        run_study(config)
