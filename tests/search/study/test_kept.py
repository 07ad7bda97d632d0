"""What the driver keeps of its study is what the database holds, and is not read again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from search.study.kept import KeptStorage
from search.study.queue import RungStudy
from search.study.storage import opened_storage


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[RDBStorage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with opened_storage(f"sqlite:///{tmp_path / 'optuna.db'}") as storage:
        yield storage


@pytest.fixture
def study(backend: RDBStorage) -> optuna.Study:
    return optuna.create_study(storage=KeptStorage(backend), study_name="kept")


def suggest(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-3, 1e-1, log=True)
    depth = trial.suggest_int("depth", 1, 9, step=2)
    shift = {"cnn": 0.0, "vgg16": 0.5}[trial.suggest_categorical("backbone", ["cnn", "vgg16"])]
    return lr * depth + shift


def stored(backend: RDBStorage) -> list[FrozenTrial]:
    """What somebody else reads."""
    name = backend.get_all_studies()[0].study_name
    return optuna.load_study(storage=backend, study_name=name).get_trials()


def shown(trial: FrozenTrial) -> dict[str, str]:
    """All of a trial; the database has no order of attributes, and NaN is equal to nothing."""
    about = {**vars(trial), "_user_attrs": 0, "_system_attrs": 0}
    attributes = sorted(trial.user_attrs.items()), sorted(trial.system_attrs.items())
    return {name: str(value) for name, value in about.items()} | {"attrs": str(attributes)}


def act_at_random(study: optuna.Study, rng: np.random.Generator) -> None:
    """One of the things that a driver does to a trial of its study."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    act = rng.integers(0, 7) if running else 0
    if act == 0:
        suggest(study.ask())
        return
    if act == 1:
        study.enqueue_trial({"lr": float(rng.uniform(1e-3, 1e-1))}, user_attrs={"recipe": "one"})
        return
    frozen = running[rng.integers(0, len(running))]
    trial = optuna.Trial(study, frozen._trial_id)
    if act == 2:
        step = max(frozen.intermediate_values, default=0) + 1
        trial.report(float(rng.choice([0.5, np.inf, np.nan])), step)
    elif act == 3:
        trial.set_user_attr("params", {"sizes": (128, 224), "lr": 0.1, "none": None})
    elif act == 4:
        study._storage.set_trial_system_attr(frozen._trial_id, "constraints", [0.0, -1.5])
    else:
        end = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL][rng.integers(0, 3)]
        study.tell(frozen.number, 0.25 if end == TrialState.COMPLETE else None, state=end)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_is_what_the_database_holds(
    study: optuna.Study, backend: RDBStorage, seed: int
) -> None:
    study.sampler = RandomSampler(seed)
    rng = np.random.default_rng(seed)
    for _ in range(80):
        act_at_random(study, rng)
    suggest(study.ask())
    study.enqueue_trial({"lr": 0.01})
    kept = study.get_trials()
    assert len({trial.state for trial in kept}) == 5
    assert [shown(trial) for trial in kept] == [shown(trial) for trial in stored(backend)]


def test_a_reopened_study_goes_on_with_what_is_there(
    study: optuna.Study, backend: RDBStorage
) -> None:
    suggest(study.ask())
    again = optuna.create_study(
        storage=KeptStorage(backend), study_name="kept", load_if_exists=True
    )
    again.tell(0, 1.0)
    suggest(again.ask())
    assert again.get_trials() == stored(backend)
    assert again.best_value == 1.0
    assert again._storage.get_n_trials(again._study_id, TrialState.RUNNING) == 1


def test_a_sampler_draws_the_same_as_from_optunas_own_cache(backend: RDBStorage) -> None:
    values = []
    for name, storage in (("kept", KeptStorage(backend)), ("own", backend)):
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=TPESampler(seed=3, constant_liar=True, multivariate=False),
        )
        study.optimize(suggest, n_trials=25)
        values.append([trial.params for trial in study.get_trials(deepcopy=False)])
    assert values[0] == values[1]


def test_looking_at_the_trials_asks_the_database_nothing(
    study: optuna.Study, backend: RDBStorage
) -> None:
    trials = [study.ask() for _ in range(3)]
    for trial in trials:
        suggest(trial)
    asked: list[str] = []
    event.listen(backend.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    for kept in study.get_trials(deepcopy=False):
        assert study._storage.get_trial(kept._trial_id) == kept
    assert study.direction.name == "MINIMIZE"
    assert asked == []


def test_what_was_handed_out_does_not_change(study: optuna.Study) -> None:
    trial = study.ask()
    before = study.get_trials(deepcopy=False)[0]
    trial.report(0.5, 1)
    trial.set_user_attr("a", 1)
    assert (before.intermediate_values, before.user_attrs) == ({}, {})
    copied = study.get_trials()[0]
    copied.user_attrs["a"] = 2
    assert study.get_trials(deepcopy=False)[0].user_attrs == {"a": 1}


def test_what_the_database_refuses_is_not_kept(study: optuna.Study, backend: RDBStorage) -> None:
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(trial._trial_id, "late", value=1)
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert study.get_trials() == stored(backend)


def test_what_somebody_else_creates_shifts_no_number(
    study: optuna.Study, backend: RDBStorage
) -> None:
    suggest(study.ask())
    optuna.load_study(storage=backend, study_name="kept").enqueue_trial({"lr": 0.01})
    trial = study.ask()
    suggest(trial)
    trial.report(0.5, 1)
    kept = study.get_trials(deepcopy=False)
    assert [t.number for t in kept] == [0, 1, 2]
    assert kept == stored(backend)
    assert study.ask().number == 1  # the enqueued one is not lost


def test_what_somebody_else_ends_is_not_handed_out(
    study: optuna.Study, backend: RDBStorage
) -> None:
    rung = RungStudy(study, promoted=False)
    study.enqueue_trial({"lr": 0.01})
    optuna.load_study(storage=backend, study_name="kept").ask()
    theirs = backend.get_all_trials(study._study_id)[0]
    backend.set_trial_state_values(theirs._trial_id, TrialState.FAIL)
    assert rung.ask().number == 1
    assert study.get_trials() == stored(backend)


def test_a_param_of_another_kind_is_refused(study: optuna.Study, backend: RDBStorage) -> None:
    study.ask().suggest_float("lr", 1e-3, 1e-1)
    again = optuna.load_study(storage=KeptStorage(backend), study_name="kept")
    for one in (study, again):
        with pytest.raises(ValueError, match="different distribution kind"):
            one.ask().suggest_categorical("lr", ["a", "b"])


def test_studies_of_one_storage_are_kept_apart(backend: RDBStorage) -> None:
    storage = KeptStorage(backend)
    one, two = (optuna.create_study(storage=storage, study_name=name) for name in ("a", "b"))
    one.ask()
    two.ask()
    two.ask()
    assert [len(one.get_trials()), len(two.get_trials())] == [1, 2]
    optuna.delete_study(study_name="b", storage=storage)
    assert [len(one.get_trials()), len(storage.get_all_studies())] == [1, 1]
