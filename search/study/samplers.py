"""Optuna's samplers by name, told at once which params every trial draws.

Left alone, Optuna's samplers infer what to model from the trials so far: the params that all of
them drew. The first recipe with a backbone that the space does not offer takes the backbone out of
the model for good. Here each models what the space always draws, and learns from those trials that
drew all of it. What hangs on a condition, and each choice with tpe and cmaes, is drawn by itself:
by TPE, for QMC at random.

Constraints (`trial.set_constraint`, 0 or less is feasible) steer tpe, gp and nsga2. cmaes, random
and qmc do not look at them; there they only decide which results count.
"""

import copy
import math
import warnings
from collections.abc import Callable, Container, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.config import SamplerName
from search.errors import ConfigError
from search.space import Space

POPULATION = 20  # trials in a generation of NSGA-II; Optuna's 50 outlast most studies
GENERATION = "NSGAIISampler:generation"  # where Optuna notes a trial's

Trials = list[FrozenTrial]


def check_sampler(name: SamplerName, space: Space, *, n_objectives: int = 1) -> None:
    """Refuse a sampler that cannot work on this space, or with so many objectives.

    Raises:
        ConfigError: it is cmaes, with several objectives or with no range to model.
    """
    if name != "cmaes":
        return
    others = "choose tpe, gp, nsga2, random or qmc"
    if n_objectives > 1:
        raise ConfigError(f"sampler: cmaes takes one objective, there are {n_objectives}; {others}")
    if not _modelled(name, space):
        raise ConfigError(
            f"sampler: cmaes needs a range without a condition, the space has none; {others}"
        )


def build_sampler(
    name: SamplerName, space: Space, *, seed: int, n_objectives: int = 1, drawn: int = 0
) -> BaseSampler:
    """Build a sampler whose draws are repeatable.

    Args:
        seed: the study's. The same seed gives the same draws after the same trials.
        drawn: trials already in a study that is reopened; they change the seed, or a study that
            goes on would repeat itself. QMC finds its own place in the study instead.

    Raises:
        ConfigError: see check_sampler.
    """
    check_sampler(name, space, n_objectives=n_objectives)
    first, second, third = np.random.SeedSequence([seed, drawn]).generate_state(3).tolist()
    chance = RandomSampler(seed=first)
    if name == "random":
        return chance
    tpe = TPESampler(seed=second)  # avoids what is running; models params jointly if it can
    modelled = _modelled(name, space)
    if name == "tpe":
        # With several objectives Optuna holds TPE param by param to be the better one.
        return KnownSpaceSampler(
            tpe, {} if n_objectives > 1 else modelled, chance=chance, singly=tpe, shown=_as_told
        )
    model: BaseSampler
    if name == "gp":
        model = GPSampler(seed=third)
    elif name == "cmaes":
        model = ReplayedCmaEs(seed=third, n_startup_trials=0)
    elif name == "nsga2":
        model = NSGAIISampler(seed=third, population_size=POPULATION)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            model = QMCSampler(seed=seed, scramble=True)
    return KnownSpaceSampler(
        model, modelled, chance=chance, singly=chance if name == "qmc" else tpe, shown=_as_complete
    )


def _modelled(name: SamplerName, space: Space) -> dict[str, BaseDistribution]:
    """What is drawn jointly.

    CMA-ES knows ranges only. TPE could take choices, too, but then settles on one too early: on a
    toy function of four backbones it never came back to the best one in 5 of 40 studies of 100
    trials, and in none with each choice by itself.
    """
    return {
        param: distribution
        for param, distribution in space.distributions().items()
        if not distribution.single()
        and not (name in ("tpe", "cmaes") and isinstance(distribution, CategoricalDistribution))
    }


class KnownSpaceSampler(BaseSampler):
    """Gives a sampler its params from the start, and only those trials that drew all of them."""

    def __init__(
        self,
        model: BaseSampler,
        modelled: dict[str, BaseDistribution],
        *,
        chance: BaseSampler,
        singly: BaseSampler,
        shown: Callable[[Trials], Trials],
    ) -> None:
        """Draw `modelled` by `model`, or by `chance` where it passes; all else by `singly`."""
        self._model, self._modelled, self._shown = model, modelled, shown
        self._chance, self._singly = chance, singly

    def infer_relative_search_space(self, *_: Any) -> dict[str, BaseDistribution]:
        return dict(self._modelled)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        seen = SeenStudy(study, search_space.keys(), self._shown)
        return self._model.sample_relative(seen, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        drawer = self._chance if param_name in self._modelled else self._singly
        seen = SeenStudy(study, {param_name}, _as_told)
        return drawer.sample_independent(seen, trial, param_name, param_distribution)


class SeenStudy(optuna.Study):
    """A study as a sampler sees it: of its finished trials those that drew the given params."""

    def __init__(
        self, study: optuna.Study, params: AbstractSet[str], shown: Callable[[Trials], Trials]
    ) -> None:
        self.__dict__.update(study.__dict__)
        self._params, self._shown = params, shown

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> Trials:
        trials = super()._get_trials(deepcopy=False, use_cache=use_cache)
        fitting = [
            t for t in trials if not t.state.is_finished() or self._params <= t.params.keys()
        ]
        found = [t for t in self._shown(fitting) if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found


def _as_told(trials: Trials) -> Trials:
    """For TPE, which ranks stopped trials itself, by their reports.

    With several objectives Optuna cannot: such a trial has no value, and its reports are left out.
    """
    return [_without_reports(trial) if _is_mute(trial) else trial for trial in trials]


def _is_mute(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.PRUNED and trial.values is None


def _without_reports(trial: FrozenTrial) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.intermediate_values = {}
    return shown


def _as_complete(trials: Trials) -> Trials:
    """For samplers that learn from complete trials only: a stopped one counts with its last value.

    Otherwise the region where ASHA stops everything looks unexplored for ever. Trials that lack a
    constraint that others have are left out, as GP can do nothing with them. A trial that was not
    bred, a recipe say, belongs to the first generation.
    """
    pending = [t for t in trials if not t.state.is_finished()]
    ended = [_completed(t) for t in trials if t.state.is_finished() and _finite(t.values)]
    names = {name for trial in ended for name in trial.constraints}
    return pending + [trial for trial in ended if trial.constraints.keys() == names]


def _completed(trial: FrozenTrial) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.state = TrialState.COMPLETE
    # Sorted, as GP takes the constraints by their place.
    shown.system_attrs = dict(sorted({GENERATION: 0, **trial.system_attrs}.items()))
    return shown


def _finite(values: Sequence[float] | None) -> bool:
    return values is not None and all(math.isfinite(value) for value in values)


class ReplayedCmaEs(CmaEsSampler):
    """CMA-ES that works its state out from the trials; Optuna's own keeps it as a pickle."""

    def _restore_optimizer(self, completed_trials: Trials) -> None:
        self._told = completed_trials

    def _init_optimizer(self, trans: Any, direction: StudyDirection) -> Any:
        optimizer = super()._init_optimizer(trans, direction)
        sign = -1 if direction == StudyDirection.MAXIMIZE else 1
        size = optimizer.population_size
        while len(told := self._get_solution_trials(self._told, optimizer.generation)) >= size:
            solutions = [(trans.transform(t.params), sign * (t.value or 0)) for t in told[:size]]
            optimizer.tell(solutions)
        return optimizer
