"""What must hold of a study whatever was killed while it went on."""

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from search.config import ExperimentConfig
from search.study.queue import again_of, count_done
from search.study.records import StudyFolder
from search.study.storage import open_storage, storage_url
from search.study.trial import Trial, train_trial


def storage_of(config: ExperimentConfig) -> optuna.Study:
    folder = StudyFolder(config.study_folder)
    storage = open_storage(storage_url(folder, config.storage))
    return optuna.load_study(study_name=folder.head().storage_name, storage=storage)


def check_nothing_lost(config: ExperimentConfig, *, trials: int) -> None:
    """Exactly the trials asked for, each of them once, and the best can be had again."""
    study = storage_of(config)
    known = study.get_trials(deepcopy=False)
    counted = [trial for trial in known if trial.number not in again_of(study)]
    assert count_done(study) == len(counted) == trials
    assert {trial.state for trial in counted} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({_params(trial) for trial in counted}) == trials
    done_again = [trial for trial in known if trial.number in again_of(study)]
    assert {trial.state for trial in done_again} <= {TrialState.FAIL}
    folder = StudyFolder(config.study_folder)
    records = {record.number: record for record in folder.records()}
    for trial in counted:
        record = records[trial.number]
        assert record.status == {"COMPLETE": "complete", "PRUNED": "pruned"}[trial.state.name]
        assert len(record.epochs) == len(trial.intermediate_values)
    best = study.best_trial
    again = Trial(number=999, params=records[best.number].params)
    assert train_trial(config, again).value == pytest.approx(best.value, abs=1e-6)


def _params(trial: FrozenTrial) -> str:
    return yaml.safe_dump(trial.user_attrs["params"])
