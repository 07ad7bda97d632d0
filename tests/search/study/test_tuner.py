"""ASHA, when a study goes on."""

from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from search.study.tuner import Asha


def an_asha(mode: str) -> Asha:
    return Asha(
        time_attr="epoch",
        metric="best",
        mode=mode,
        max_t=9,
        grace_period=1,
        reduction_factor=3,
    )


def decision_on(asha: Asha, value: float) -> str:
    """What becomes of a new trial that reports a value in its first epoch."""
    tune: Any = None
    trial: Any = SimpleNamespace(trial_id="new")
    asha.on_trial_add(tune, trial)
    return asha.on_trial_result(tune, trial, {"epoch": 1, "best": value})


def trials(*values: float) -> list[optuna.trial.FrozenTrial]:
    return [
        optuna.trial.create_trial(
            state=TrialState.PRUNED, value=value, intermediate_values={1: value}
        )
        for value in values
    ]


@pytest.mark.parametrize(
    ("mode", "value", "decision"),
    [
        ("min", 0.9, TrialScheduler.STOP),
        ("min", 0.1, TrialScheduler.CONTINUE),
        ("max", 0.1, TrialScheduler.STOP),
        ("max", 0.9, TrialScheduler.CONTINUE),
    ],
)
def test_a_new_trial_is_measured_against_those_of_before(
    mode: str, value: float, decision: str
) -> None:
    asha = an_asha(mode)
    known = trials(0.4, 0.5, 0.6)
    for number, trial in enumerate(known):
        trial.number = number
    asha.replay(known, mode)
    assert decision_on(asha, value) == decision


def test_without_a_past_the_first_trial_goes_on() -> None:
    asha = an_asha("min")
    asha.replay([], "min")
    assert decision_on(asha, 9.9) == TrialScheduler.CONTINUE
