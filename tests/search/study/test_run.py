"""A real study on a real Ray: pruned means pruned, a rerun goes on, another config is refused."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.config import ExperimentConfig
from search.errors import ConfigError, StudyError, TrainingError
from search.study.course import Course
from search.study.ledger import Ledger
from search.study.lock import one_search
from search.study.records import StudyFolder, TrialRecord
from search.study.run import run_study
from search.study.settle import Settlement
from search.study.standing import Standing
from search.study.storage import open_storage, storage_url
from tests.rays import started_ray
from tests.search.study.test_intake import an_experiment

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
    with started_ray(num_cpus=2):
        yield


class Heard:
    """The trials that a study told of as they ended."""

    def __init__(self) -> None:
        self.records: list[TrialRecord] = []
        self.standings: list[Standing] = []

    def __call__(self, standing: Standing, ended: TrialRecord | None) -> None:
        self.standings.append(standing)
        if ended is not None:
            self.records.append(ended)


HEARD = Heard()  # of the study that the first tests share


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentConfig, StudyFolder]:
    config = a_study(tmp_path_factory.mktemp("study"), trials=5)
    return config, run_study(config, watch=HEARD)


def a_study(folder: Path, *, trials: int, **changes: object) -> ExperimentConfig:
    settings: dict[str, object] = {
        "space": SPACE,
        "portfolio": PORTFOLIO,
        "fidelity": {"max_epochs": 4, "reduction": 2, "finalists": 0},
        "budget": {"trials": trials, "keep_weights": 2},
    }
    return an_experiment(folder, **{**settings, **changes})


def the_study(folder: StudyFolder) -> optuna.Study:
    storage = open_storage(storage_url(folder, None))
    return optuna.load_study(study_name=folder.head().storage_name, storage=storage)


def the_trials(folder: StudyFolder) -> list[optuna.trial.FrozenTrial]:
    return the_study(folder).get_trials(deepcopy=False)


def counted(folder: StudyFolder) -> list[TrialRecord]:
    return [record for record in folder.records() if not record.again]


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


def test_every_slot_is_used_and_its_worker_is_reused(
    finished: tuple[ExperimentConfig, StudyFolder],
) -> None:
    assert max(len(standing.running) for standing in HEARD.standings) == 2
    records = finished[1].records()
    # On a busy machine the second worker may start only when the first has done all trials.
    assert len({record.worker for record in records}) <= 2 < len(records)


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
    heard = Heard()
    run_study(config, watch=heard)
    assert heard.records == []
    assert study.records() == before


def test_a_larger_budget_goes_on(finished: tuple[ExperimentConfig, StudyFolder]) -> None:
    config, study = finished
    budget = config.budget.model_copy(update={"trials": 6})
    heard = Heard()
    run_study(config.model_copy(update={"budget": budget}), watch=heard)
    assert [record.number for record in heard.records] == [5]
    assert len(the_trials(study)) == 6


def test_a_trial_that_a_kill_left_running_is_done_again(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=2)
    study = run_study(config)
    killed = the_study(study).ask(
        {"lr": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)}
    )
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
    with pytest.raises(StudyError, match=r"another config: objective nll, now auroc; change it"):
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
        space={**SPACE, "image_size": {"low": 16, "high": 16}},  # decoded when a trial asks for it
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
        one_search(study, storage_url(study, None)),
        pytest.raises(StudyError, match="another search works on this study"),
    ):
        run_study(config)


def test_an_error_of_the_driver_comes_through_as_itself(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=2)

    def full(standing: Standing, ended: TrialRecord | None) -> None:
        raise OSError(28, "No space left on device", "record.json")

    with pytest.raises(OSError, match="No space left"):
        run_study(config, watch=full)
    study = run_study(config)
    assert len(counted(study)) == 2
    assert {record.status for record in counted(study)} <= {"complete", "pruned"}
    assert TrialState.RUNNING not in {trial.state for trial in the_trials(study)}


def test_more_cpus_than_there_are_is_said_at_once(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=1, resources={"cpu": 64})
    with pytest.raises(StudyError, match=r"needs 64 CPUs and 0 GPUs on one node, Ray has 2 CPUs"):
        run_study(config)


def test_more_gpus_than_there_are_is_said_before_the_data_are_read(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=1, resources={"gpu": 1, "workers": 8})
    with pytest.raises(
        StudyError, match=r"1 GPUs on one node in each of 8 workers, Ray has .* 0 G"
    ):
        run_study(config)
    assert not config.study_folder.exists()


def test_ten_more_are_ten_more_and_the_same_words_do_not_add_again(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=2, portfolio={"recipes": []})
    assert len(counted(run_study(config))) == 2
    assert len(counted(run_study(config, trials="+1"))) == 3
    assert len(counted(run_study(config))) == 3
    assert len(counted(run_study(config, trials="+1"))) == 4


def test_finalists_have_probabilities_of_every_image_that_is_trained_on(tmp_path: Path) -> None:
    fidelity = {"max_epochs": 2, "grace": 2, "finalists": 2}
    config = a_study(tmp_path, trials=3, fidelity=fidelity, splits={"folds": 3})
    heard = Heard()
    study = run_study(config, watch=heard)
    images = study.open_images()
    trained = images[images["part"] == "train"].set_index("image")["fold"]
    ranked = sorted(study.records(), key=lambda r: r.value or 9)
    for finalist in ranked[:2]:
        oof = study.oof_probs(finalist.number)
        assert sorted(oof["image"]) == sorted(trained.index)
        assert oof["fold"].tolist() == trained.reindex(oof["image"]).tolist()
        folds = study.fold_records(finalist.number)
        assert [(fold.fold, fold.status) for fold in folds] == [(1, "complete"), (2, "complete")]
        assert {len(fold.epochs) for fold in folds} == {finalist.best_epoch}
        assert all(study.has_weights(finalist.number, fold=fold.fold) for fold in folds)
    assert study.fold_records(ranked[2].number) == []
    assert [s.phase for s in heard.standings][-1] == "finalists"
    heard.records.clear()
    run_study(config, watch=heard)
    assert heard.records == []


def test_the_second_rung_trains_the_best_again_at_more_pixels(tmp_path: Path) -> None:
    fidelity = {"max_epochs": 2, "grace": 2, "finalists": 1, "image_size": 24}
    config = a_study(tmp_path, trials=3, fidelity=fidelity, splits={"folds": 1})
    study = run_study(config)
    *first, second = study.records()
    assert [record.params.image_size for record in first] == [16, 16, 16]
    best = min(first, key=lambda r: r.value or 9)
    assert second.promoted_from == best.number
    assert second.params == best.params.model_copy(update={"image_size": 24})
    assert (second.status, len(second.epochs)) == ("complete", 2)
    assert len(run_study(config).records()) == 4


def test_what_the_time_budget_cuts_fails_and_is_done_under_a_larger_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_study(tmp_path, trials=4, fidelity={"max_epochs": 30, "grace": 30, "finalists": 0})
    said: list[str] = []
    with monkeypatch.context() as patch:
        spent = "budget.minutes (1)"
        patch.setattr(Course, "spent", lambda self: spent if self.done else None)
        study = run_study(config, say=said.append)
    states = [trial.state for trial in the_trials(study) if trial.state != TrialState.WAITING]
    assert set(states) == {TrialState.COMPLETE, TrialState.FAIL}
    cut = next(record for record in study.records() if record.status == "failed")
    assert (cut.error, cut.again) == ("budget.minutes (1) was used up", True)
    assert said == ["budget.minutes (1) is used up; raise it and run the same command to go on"]
    assert [record.status for record in counted(run_study(config))] == ["complete"] * 4


def test_a_trial_that_breaks_a_constraint_ends_pruned_before_it_trains(tmp_path: Path) -> None:
    space = {**SPACE, "hidden": {"choice": [4, 512]}}
    config = a_study(tmp_path, trials=6, space=space, constraints={"params_m": 0.2})
    study = run_study(config)
    small = {r.number for r in study.records() if r.params.hidden == 4}
    for trial in the_trials(study):
        record = study.record(trial.number)
        assert (trial.number in small) == (record.violations == {})
        if trial.number not in small:
            assert (trial.state, record.epochs) == (TrialState.PRUNED, [])
            assert record.error is not None
            assert record.error.startswith("params_m is")
            assert trial.constraints["params_m"] == pytest.approx(record.violations["params_m"])
    assert 0 < len(small) < 6


def test_no_feasible_trial_is_said_with_the_nearest_one(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=2, constraints={"params_m": 0.001})
    with pytest.raises(
        StudyError, match=r"no feasible trial among 2; the nearest exceeds params_m"
    ):
        run_study(config)


def test_several_objectives_are_all_told_and_none_is_stopped_early(tmp_path: Path) -> None:
    space = {**SPACE, "hidden": {"choice": [4, 64]}}
    config = a_study(tmp_path, trials=4, space=space, objective=["nll", "params_m"])
    study = run_study(config)
    assert [d.name for d in the_study(study).directions] == ["MINIMIZE", "MINIMIZE"]
    for trial in the_trials(study):
        record = study.record(trial.number)
        assert (trial.state, len(record.epochs)) == (TrialState.COMPLETE, 4)
        assert trial.values == [record.value, record.costs["params_m"]]


def test_an_objective_that_is_no_number_ends_fail_and_leaves_the_study_readable(
    tmp_path: Path,
) -> None:
    # Sensitivity 1 of one class alone leaves the cost of the other undefined: no cost ratio is set.
    config = a_study(tmp_path, trials=1, objective=["nll", "balanced_accuracy"])
    study = run_study(config)
    record = study.record(0).model_copy(update={"values": {"nll": 0.5}, "status": "running"})
    study.write_record(record)
    asked = the_study(study).ask()
    study.write_record(record.model_copy(update={"number": asked.number}))
    ledger = Ledger(config.objectives)
    settled = Settlement(study, the_study(study), ledger, config).end(asked, TrialState.COMPLETE)
    assert (settled.status, settled.error) == ("failed", "an objective is not a number")
    assert [r.status for r in study.records()] == ["complete", "failed"]


def test_a_given_split_without_further_folds_has_no_finalists(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=1, fidelity={"max_epochs": 1}, splits={"folds": 1})
    study = run_study(config)
    assert study.further_folds() == []
    assert study.fold_records(0) == []


def test_finalists_weights_outlive_better_trials_that_were_stopped_early(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=1, fidelity={"max_epochs": 1, "finalists": 1})
    study, better = run_study(config), []
    for number in (1, 2, 3):
        better.append(study.record(0).model_copy(update={"number": number, "status": "pruned"}))
        better[-1] = better[-1].model_copy(update={"value": 0.01, "values": {"nll": 0.01}})
        study.write_record(better[-1])
    ledger = Ledger(config.objectives, better)
    Settlement(study, the_study(study), ledger, config)
    assert study.kept_weights() >= {0}


def test_a_loss_that_is_no_number_ends_fail_and_counts(tmp_path: Path) -> None:
    wild = {"lr": 1.0, "optimizer": "sgd", "weight_decay": 0, "hidden": 512, "schedule": "constant"}
    fidelity = {"max_epochs": 30, "grace": 30, "finalists": 0}
    config = a_study(tmp_path, trials=2, space={**SPACE, **wild}, fidelity=fidelity)
    study = run_study(config)
    last = study.records()[-1]
    assert (last.status, last.again) == ("failed", False)
    assert "lower lr" in (last.error or "")
    assert the_trials(study)[last.number].state == TrialState.FAIL


def test_cmaes_with_two_objectives_is_refused_at_once(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=1, objective=["nll", "params_m"], sampler="cmaes")
    with pytest.raises(ConfigError, match="cmaes takes one objective"):
        run_study(config)
