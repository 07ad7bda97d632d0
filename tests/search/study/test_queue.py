"""Which trials count, and how many are wanted."""

import optuna
import pytest
from optuna.trial import TrialState

from search.errors import StudyError
from search.params import Params
from search.space import Space
from search.study.queue import (
    RungStudy,
    again_of,
    attempt_of,
    count_done,
    enqueue_promoted,
    enqueue_recipes,
    promoted_of,
    reach_target,
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


def test_ten_more_again_adds_once_the_search_for_the_first_has_come_to_its_end(
    study: optuna.Study,
) -> None:
    assert target_of(study, 1, "+1") == 2
    for _ in range(2):
        study.tell(study.ask(), 0.5)
    assert target_of(study, 1, "+1") == 2  # the finalists may not be done
    reach_target(study)
    assert target_of(study, 1, "+1") == 3


def test_each_rung_hands_out_its_own_waiting_trials(study: optuna.Study) -> None:
    enqueue_promoted(study, SPACE, 0, Params(image_size=64))
    enqueue_recipes(study, SPACE, {"mine": Params()})
    first, second = (RungStudy(study, promoted=promoted) for promoted in (False, True))
    assert first.ask().user_attrs["recipe"] == "mine"
    assert "params" not in first.ask().user_attrs
    assert second.ask().user_attrs["promoted_from"] == 0


def test_a_recipe_with_other_params_than_were_tried_is_refused(study: optuna.Study) -> None:
    enqueue_recipes(study, SPACE, {"mine": Params()})
    with pytest.raises(StudyError, match="mine was tried with other params in this study"):
        enqueue_recipes(study, SPACE, {"mine": Params(lr=0.1)})
