"""Which trials count, and how many are wanted."""

import optuna
import pytest
from optuna.trial import TrialState

from search.params import Params
from search.space import Space
from search.study.queue import (
    again_of,
    attempt_of,
    count_done,
    enqueue_promoted,
    enqueue_recipes,
    promoted_of,
    requeue,
    requeue_interrupted,
    target_of,
)

SPACE = Space.model_validate({"backbone": "cnn", "lr": {"low": 1e-4, "high": 1e-2, "log": True}})


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study()


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_recipes_are_enqueued_once_and_keep_all_their_params(study: optuna.Study) -> None:
    recipes = {"mine": Params(backbone="vgg16", lr=1e-3)}
    enqueue_recipes(study, SPACE, recipes)
    enqueue_recipes(study, SPACE, recipes)
    assert states(study) == ["WAITING"]
    trial = study.ask()
    assert trial.user_attrs["recipe"] == "mine"
    assert Params.model_validate(trial.user_attrs["params"]) == recipes["mine"]
    assert SPACE.sample(trial).lr == 1e-3


def test_what_a_kill_left_running_fails_and_waits_again(study: optuna.Study) -> None:
    lr = SPACE.sample(study.ask()).lr
    requeue_interrupted(study)
    requeue_interrupted(study)
    assert states(study) == ["FAIL", "WAITING"]
    again = study.ask()
    assert SPACE.sample(again).lr == lr
    assert again_of(study) == {0}
    assert count_done(study) == 0


def test_a_kill_between_the_two_steps_of_a_requeue_does_not_double_the_trial(
    study: optuna.Study,
) -> None:
    study.ask()
    requeue(study, study.trials[0], counts=True)
    requeue_interrupted(study)
    assert states(study) == ["FAIL", "WAITING"]


def test_an_interrupted_attempt_does_not_count_and_a_dead_worker_does(study: optuna.Study) -> None:
    study.ask()
    requeue(study, study.trials[0], counts=False)
    study.ask()
    assert attempt_of(study.trials[1]) == 1
    requeue(study, study.trials[1], counts=True)
    assert attempt_of(study.trials[2]) == 2


def test_the_second_rung_and_the_first_are_counted_apart(study: optuna.Study) -> None:
    study.tell(study.ask(), 0.5)
    enqueue_promoted(study, SPACE, 0, Params(image_size=64))
    assert promoted_of(study) == {0}
    study.tell(study.ask(), 0.4)
    assert count_done(study) == 1
    assert count_done(study, promoted=True) == 1


def test_trials_of_an_earlier_study_do_not_count(study: optuna.Study) -> None:
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.COMPLETE, value=1.0, user_attrs={"warm_from": "elsewhere"}
        )
    )
    assert count_done(study) == 0


def test_ten_more_counts_from_the_budget_and_is_remembered(study: optuna.Study) -> None:
    assert target_of(study, 12, None) == 12
    assert target_of(study, 12, "+10") == 22
    assert target_of(study, 12, "+10") == 22  # the same words go on where a kill stopped them
    assert target_of(study, 12, None) == 22
    assert target_of(study, 12, "30") == 30
    assert target_of(study, 40, None) == 40


def test_ten_more_again_adds_once_the_first_ten_are_done(study: optuna.Study) -> None:
    assert target_of(study, 1, "+1") == 2
    for _ in range(2):
        study.tell(study.ask(), 0.5)
    assert target_of(study, 1, "+1") == 3
