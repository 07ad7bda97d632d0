"""What must hold of a study whatever was killed while it went on."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from search.config import ExperimentConfig
from search.study.queue import again_of, count_done
from search.study.records import StudyFolder
from search.study.storage import opened_storage, storage_url
from search.study.trial import Trial, train_trial


@contextmanager
def opened_study(config: ExperimentConfig) -> Iterator[optuna.Study]:
    """The study in its storage, whose connections are closed in the end."""
    folder = StudyFolder(config.study_folder)
    with opened_storage(storage_url(folder, config.storage)) as storage:
        yield optuna.load_study(study_name=folder.head().storage_name, storage=storage)


def count_ended(config: ExperimentConfig) -> int:
    """Trials that have ended and count."""
    with opened_study(config) as study:
        return count_done(study)


def check_nothing_lost(config: ExperimentConfig, *, trials: int) -> None:
    """Exactly the trials asked for, each of them once, and the best can be had again."""
    with opened_study(config) as study:
        _check(config, study, trials)


def _check(config: ExperimentConfig, study: optuna.Study, trials: int) -> None:
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
