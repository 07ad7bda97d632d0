"""Which params mattered, or why that cannot be told."""

from typing import Literal

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from search.report.importance import param_importances
from tests.search.report.studies import every_kind, optuna_study, trial

Direction = Literal["minimize", "maximize"]
LR = FloatDistribution(0, 1)


def study_of(values: list[float], *, direction: Direction = "minimize") -> optuna.Study:
    """`lr` decides the value, `noise` does not, `gamma` is sampled in half of the trials."""
    study = optuna.create_study(direction=direction)
    for i, value in enumerate(values):
        params = {"lr": value, "noise": (i * 7 % 10) / 10}
        if i % 2:
            params["gamma"] = (i % 3) / 3
        laws: dict[str, BaseDistribution] = dict.fromkeys(params, LR)
        study.add_trial(create_trial(value=value, params=params, distributions=laws))
    return study


SPREAD = [i / 60 for i in range(60)]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_param_that_decides_is_first_and_the_shares_add_up(direction: Direction) -> None:
    found = param_importances(study_of(SPREAD, direction=direction))
    assert next(iter(found.shares)) == "lr"
    assert found.shares["lr"] > 0.5
    assert sum(found.shares.values()) == pytest.approx(1)
    assert {*found.shares} == {"lr", "noise", "gamma"}
    assert (found.best, found.n_trials, found.reason) == (0.1, 60, "")


@pytest.mark.parametrize(("direction", "first"), [("minimize", "low"), ("maximize", "high")])
def test_the_best_trials_are_told_apart_not_the_worst(direction: Direction, first: str) -> None:
    study = optuna.create_study(direction=direction)
    laws: dict[str, BaseDistribution] = dict.fromkeys(("low", "high"), LR)
    for i, value in enumerate(SPREAD):
        spread = (i * 7 % 10) / 10
        params = {"low": 0.05 if i < 6 else spread, "high": 0.95 if i >= 54 else spread}
        study.add_trial(create_trial(value=value, params=params, distributions=laws))
    assert next(iter(param_importances(study).shares)) == first


def test_the_same_study_gives_the_same_shares() -> None:
    study = study_of(SPREAD)
    assert param_importances(study) == param_importances(study)


def test_of_several_objectives_the_first_is_explained() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for i in range(60):
        params = {"lr": i / 60, "noise": (i * 7 % 10) / 10}
        laws: dict[str, BaseDistribution] = dict.fromkeys(params, LR)
        values = [i / 60, (i * 7 % 10) / 10]
        study.add_trial(create_trial(values=values, params=params, distributions=laws))
    assert next(iter(param_importances(study).shares)) == "lr"


def test_the_handmade_study_compares_what_differs() -> None:
    found = param_importances(optuna_study(every_kind()))
    assert {*found.shares} == {"lr", "backbone"}
    assert found.best == 0.5


def test_without_a_storage_it_is_said() -> None:
    assert param_importances(None).reason == "The study's storage was not opened."


def test_too_few_complete_trials_say_nothing() -> None:
    study = optuna_study([trial(i, [0.5 + i]) for i in range(3)])
    found = param_importances(study)
    assert found.reason == "It takes 4 complete trials, there are 3."
    assert found.shares == {}


def test_equal_values_say_nothing() -> None:
    found = param_importances(study_of([0.5] * 5))
    assert found.reason == "All 5 complete trials have the same value."


def test_params_that_never_differ_say_nothing() -> None:
    study = optuna.create_study()
    one = {"backbone": CategoricalDistribution(["cnn"]), "lr": LR}
    for value in range(5):
        params = {"backbone": "cnn", "lr": 0.5}
        study.add_trial(create_trial(value=value, params=params, distributions=one))
    reason = param_importances(study).reason
    assert reason == "No sampled param differs between the complete trials."
