"""Every sampler models what the space draws, whatever the first recipes look like."""

import math
from typing import Any, get_args

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.config import SamplerName
from search.errors import ConfigError
from search.params import Params
from search.space import Space
from search.study.samplers import POPULATION, KnownSpaceSampler, build_sampler, check_sampler

BACKBONES = ["cnn", "mobilenetv2_035", "resnet18", "vit_tiny_patch16_224"]
GOOD = "resnet18"
SPACE = Space.model_validate(
    {
        "backbone": {"choice": BACKBONES},
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "dropout": {"low": 0.0, "high": 0.5},
        "batch_size": {"low": 8, "high": 64, "log": True},
        "unfreeze": {"choice": [0, 0.5, 1], "when": {"backbone": ["mobile*", "resnet*"]}},
        "warmup_epochs": {"low": 0.0, "high": 2.0, "when": {"backbone": ["resnet*"]}},
        "optimizer": {"choice": ["adamw"]},
        "image_size": 64,
    }
)
PLANE = Space.model_validate({name: {"low": 0.0, "high": 0.5} for name in ("dropout", "ema")})
OUTSIDE = (
    Params(backbone="vgg16", lr=1e-3, dropout=0.1),
    Params(backbone="vgg19", lr=0.5, dropout=0.9, batch_size=128, optimizer="sgd"),
)
NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
LEARNERS: tuple[SamplerName, ...] = ("tpe", "gp", "cmaes", "nsga2")
MODELS: tuple[SamplerName, ...] = ("tpe", "gp", "nsga2")  # that take constraints, and directions
# Trials that a learner needs; GP is quick to learn and slow to ask, NSGA-II the other way round.
ENOUGH: dict[SamplerName, int] = {"tpe": 45, "gp": 20, "cmaes": 60, "nsga2": 100}
LATE = 10  # trials at the end, where what was learned shows


def loss(params: Params) -> float:
    """Least, 0, at GOOD, lr 0.01, dropout 0.3, batch size 32."""
    found = 0.0 if params.backbone == GOOD else 0.5
    found += (math.log10(params.lr) + 2) ** 2 / 2 + 2 * (params.dropout - 0.3) ** 2
    return found + (math.log2(params.batch_size) - 5) ** 2 / 20 + 0.2 * abs(params.unfreeze - 0.5)


def begin(name: SamplerName, seed: int = 0, *, n_objectives: int = 1) -> optuna.Study:
    """Open a study whose first two trials are recipes from outside the space."""
    study = optuna.create_study(
        sampler=build_sampler(name, SPACE, seed=seed, n_objectives=n_objectives),
        directions=["minimize"] * n_objectives,
    )
    for params in OUTSIDE:
        study.enqueue_trial(SPACE.inside(params), user_attrs={"params": params.model_dump()})
    return study


def ask(study: optuna.Study) -> tuple[optuna.Trial, Params]:
    trial = study.ask()
    given = trial.user_attrs.get("params")
    if given is None:
        return trial, SPACE.sample(trial)
    params = Params.model_validate(given)
    SPACE.register(trial, params)
    return trial, params


def go_on(study: optuna.Study, n: int) -> list[Params]:
    """Ask and tell n trials one after the other."""
    drawn = []
    for _ in range(n):
        trial, params = ask(study)
        study.tell(trial, loss(params))
        drawn.append(params)
    return drawn


def share_of_good(drawn: list[Params]) -> float:
    return float(np.mean([params.backbone == GOOD for params in drawn]))


def best_at_random(n: int) -> float:
    """The typical best of n random trials, over ten studies."""
    return float(np.median([min(map(loss, go_on(begin("random", s), n))) for s in range(10)]))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_beats_chance_though_recipes_lie_outside(name: SamplerName) -> None:
    drawn = go_on(begin(name), ENOUGH[name])
    assert min(map(loss, drawn)) < best_at_random(ENOUGH[name])
    assert share_of_good(drawn[-LATE:]) > 0.5  # a quarter by chance


@pytest.mark.parametrize("name", NAMES)
def test_draws_obey_the_space_and_what_has_one_value_is_left_to_it(name: SamplerName) -> None:
    study = begin(name)
    drawn = go_on(study, 14)[2:]
    assert all(SPACE.inside(params).keys() >= SPACE.distributions().keys() for params in drawn)
    assert {params.optimizer for params in drawn} == {"adamw"}
    for trial, params in zip(study.trials[2:], drawn, strict=True):
        assert ("warmup_epochs" in trial.params) == (params.backbone == GOOD)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_repeats_and_another_does_not(name: SamplerName) -> None:
    first, again, other = (go_on(begin(name, seed), 14)[2:] for seed in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("name", NAMES)
def test_a_reopened_study_does_not_repeat_its_draws(name: SamplerName) -> None:
    study = begin(name)
    before = go_on(study, 7)[2:]
    study.sampler = build_sampler(name, SPACE, seed=0, drawn=7)
    assert not set(before) & set(go_on(study, 5))


def test_joint_and_single_params_do_not_share_their_random_numbers() -> None:
    space = Space.model_validate(
        {
            "backbone": GOOD,
            "dropout": {"low": 0.0, "high": 0.5},
            "ema": {"low": 0.0, "high": 0.5, "when": {"backbone": [GOOD]}},
        }
    )
    study = optuna.create_study(sampler=build_sampler("gp", space, seed=0))
    assert all(p.dropout != p.ema for p in [space.sample(study.ask()) for _ in range(5)])


def test_qmc_covers_a_range_evenly_even_where_the_study_is_reopened() -> None:
    study = begin("qmc", 5)
    drawn = go_on(study, 10)[2:]
    study.sampler = build_sampler("qmc", SPACE, seed=5, drawn=10)
    drawn += go_on(study, 8)
    for values in ([p.dropout / 0.5 for p in drawn], [math.log10(p.lr) / 3 + 4 / 3 for p in drawn]):
        assert sorted(int(value * 16) for value in values) == list(range(16))
    assert [sum(p.backbone == b for p in drawn) for b in BACKBONES] == [4, 4, 4, 4]


@pytest.mark.parametrize("name", NAMES)
def test_stopped_failed_and_running_trials_break_no_sampler(name: SamplerName) -> None:
    study = begin(name)
    for number in range(22):
        trial, params = ask(study)
        if number % 5 == 1:
            continue  # goes on running
        if number % 5 == 2:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 5 == 3:
            trial.report(math.nan if number == 3 else loss(params), 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, math.inf if number == 4 else loss(params))
    assert len({tuple(t.params.items()) for t in study.trials[2:]}) == 20


@pytest.mark.parametrize("name", LEARNERS)
def test_what_was_stopped_teaches_too(name: SamplerName) -> None:
    study, drawn = begin(name), []
    for _ in range(ENOUGH[name]):
        trial, params = ask(study)
        trial.report(loss(params), 1)
        study.tell(trial, state=TrialState.PRUNED)
        drawn.append(params)
    assert share_of_good(drawn[-LATE:]) > 0.5


def at(point: float, *, running: bool = False) -> optuna.trial.FrozenTrial:
    """A trial in the plane, less the better."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING if running else TrialState.COMPLETE,
        params=dict.fromkeys(PLANE.root, point),
        distributions=PLANE.distributions(),
        value=None if running else abs(point - 0.25),
    )


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_what_is_running_changes_the_next_draw(name: SamplerName) -> None:
    draws = []
    for running in (0, 4):
        study = optuna.create_study(sampler=build_sampler(name, PLANE, seed=0))
        study.add_trials([at(point / 24) for point in range(12)])
        study.add_trials([at(0.25, running=True)] * running)
        draws.append(PLANE.sample(study.ask()))
    assert draws[0] != draws[1]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "cmaes"])
def test_two_objectives_work(name: SamplerName) -> None:
    study = begin(name, n_objectives=2)
    for number in range(16):
        trial, params = ask(study)
        if number % 7 == 3:
            # Trial.report refuses several objectives, the storage does not.
            study._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [loss(params), params.batch_size])
    assert study.best_trials


@pytest.mark.parametrize("name", MODELS)
def test_two_objectives_are_both_learned(name: SamplerName) -> None:
    study = begin(name, n_objectives=2)
    drawn = []
    for _ in range(ENOUGH[name]):
        trial, params = ask(study)
        study.tell(trial, [loss(params), abs(math.log10(params.lr) + 2)])
        drawn.append(params)
    assert share_of_good(drawn[-LATE:]) > 0.4
    assert np.mean([abs(math.log10(p.lr) + 2) for p in drawn[-LATE:]]) < 0.6  # 0.83 by chance


def go_on_constrained(study: optuna.Study, n: int) -> list[Params]:
    """Ask and tell; only the first backbone is feasible, which is not the one of least loss."""
    drawn = []
    for number in range(n):
        trial, params = ask(study)
        limits = {"params_m": -1.0 if params.backbone == BACKBONES[0] else 1.0, "ece": -1.0}
        # Some trials tell them in another order, and some that were stopped tell none.
        for key in sorted(limits, reverse=number % 2 == 1) if number % 9 else ():
            trial.set_constraint(key, limits[key])
        trial.report(loss(params), 1)
        if number % 9:
            study.tell(trial, loss(params))
        else:
            study.tell(trial, state=TrialState.PRUNED)
        drawn.append(params)
    return drawn


@pytest.mark.parametrize("name", MODELS)
def test_constraints_steer_without_a_function(name: SamplerName) -> None:
    drawn = go_on_constrained(begin(name), ENOUGH[name])
    assert np.mean([params.backbone == BACKBONES[0] for params in drawn[-LATE:]]) > 0.5


@pytest.mark.parametrize("name", ["cmaes", "random", "qmc"])
def test_samplers_that_know_no_constraints_take_them_in_silence(name: SamplerName) -> None:
    assert len(go_on_constrained(begin(name), 12)) == 12


def test_cmaes_goes_on_after_a_restart_and_stores_no_pickle() -> None:
    study = begin("cmaes")
    go_on(study, 60)
    study.sampler = build_sampler("cmaes", SPACE, seed=0, drawn=60)
    late = go_on(study, 8)
    assert np.mean([abs(math.log10(p.lr) + 2) for p in late]) < 0.4  # 0.83 by chance
    attrs = {key for trial in study.trials for key in trial.system_attrs}
    assert "cma:generation" in attrs
    assert not any(key.startswith("cma:optimizer") for key in attrs)


class Always(optuna.samplers.RandomSampler):
    """Draws one value, and nothing jointly."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def sample_independent(self, *_: Any) -> float:
        return self.value


def test_what_the_model_passes_over_is_left_to_chance_and_all_else_drawn_singly() -> None:
    modelled = {"dropout": PLANE.distributions()["dropout"]}
    sampler = KnownSpaceSampler(
        Always(0.3), modelled, chance=Always(0.1), singly=Always(0.4), shown=lambda trials: trials
    )
    params = PLANE.sample(optuna.create_study(sampler=sampler).ask())
    assert (params.dropout, params.ema) == (0.1, 0.4)


def test_recipes_inside_are_parents_of_the_second_generation() -> None:
    study = optuna.create_study(sampler=build_sampler("nsga2", PLANE, seed=0))
    study.add_trials([at(0.25)] * POPULATION)
    drawn = [PLANE.sample(study.ask()).dropout for _ in range(40)]
    bred = [value == pytest.approx(0.25) for value in drawn]
    assert 0.2 < np.mean(bred) < 0.8  # half of two params mutate


def test_several_objectives_are_refused_for_cmaes_at_once() -> None:
    with pytest.raises(ConfigError, match=r"cmaes takes one objective, there are 2; choose tpe"):
        build_sampler("cmaes", SPACE, seed=0, n_objectives=2)


def test_a_space_without_ranges_is_refused_for_cmaes() -> None:
    space = Space.model_validate(
        {"backbone": {"choice": BACKBONES}, "lr": {"low": 0.1, "high": 0.1}}
    )
    with pytest.raises(ConfigError, match=r"cmaes needs a range without a condition"):
        check_sampler("cmaes", space)
    check_sampler("tpe", space)
