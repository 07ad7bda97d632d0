"""Letting a study learn from an earlier one: its finished trials, where this space agrees."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from search.errors import StudyError
from search.params import Params
from search.space import Choice, Range, Scalar, Space, flatten

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class WarmStart:
    """What came of it: trials added by this call, and why others were not, by their number."""

    added: int
    refused: dict[int, str]


class _DisagreesError(Exception):
    """One param of an earlier trial that this space would not have given."""


def warm_start(
    study: optuna.Study, earlier: optuna.Study, space: Space, *, source: str
) -> WarmStart:
    """Add an earlier study's complete and pruned trials, drawn from this space's distributions.

    Each must be what this space could have given: params drawn here lie inside, of the same kind
    and scale; fixed ones and defaults are equal. Trials that were done again, or came from a third
    study, are passed over. A trial that was added before is not added twice.

    Args:
        source: names the earlier study in the added trials' user attributes.

    Raises:
        StudyError: the two studies do not optimise in the same directions.
    """
    if study.directions != earlier.directions:
        raise StudyError(
            f"{source}: its directions are {_names(earlier)}, this study's {_names(study)}; "
            "warm-start from a study with the same objectives"
        )
    known = {
        trial.user_attrs["warm_number"]
        for trial in study.get_trials(deepcopy=False)
        if trial.user_attrs.get("warm_from") == source
    }
    added, refused = 0, {}
    for trial in _own_trials(earlier):
        if trial.number in known:
            continue
        try:
            study.add_trial(_redrawn(trial, space, source))
        except _DisagreesError as disagreement:
            refused[trial.number] = str(disagreement)
        else:
            added += 1
    return WarmStart(added, refused)


def _names(study: optuna.Study) -> str:
    return " and ".join(direction.name.lower() for direction in study.directions)


def _own_trials(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("resume_of") for trial in trials}
    return [
        trial
        for trial in trials
        if trial.state in ENDED
        and trial.number not in again
        and "warm_from" not in trial.user_attrs
    ]


def _redrawn(trial: FrozenTrial, space: Space, source: str) -> FrozenTrial:
    """The trial as this space would have drawn it; Optuna wants the same choices in all trials."""
    params = _recorded(trial)
    drawn = _agreed(trial, space, flatten(params))
    return create_trial(
        state=trial.state,
        values=trial.values,
        params={name: value for name, (value, _) in drawn.items()},
        distributions={name: distribution for name, (_, distribution) in drawn.items()},
        user_attrs={
            "warm_from": source,
            "warm_number": trial.number,
            "params": params.model_dump(),
        },
        intermediate_values=trial.intermediate_values,
        constraints=trial.constraints,
    )


def _recorded(trial: FrozenTrial) -> Params:
    try:
        return Params.model_validate(trial.user_attrs["params"])
    except KeyError:
        raise _DisagreesError("its params are not recorded") from None
    except ValidationError as error:
        where = ".".join(str(key) for key in error.errors()[0]["loc"])
        raise _DisagreesError(f"{where} is not a param of this version, or out of range") from error


def _agreed(
    trial: FrozenTrial, space: Space, flat: dict[str, Scalar]
) -> dict[str, tuple[Any, BaseDistribution]]:
    """What this space draws of a trial's params, each with our distribution.

    Raises:
        _DisagreesError: it would not give all of them.
    """
    for name in trial.distributions:
        if name not in space.root:
            raise _DisagreesError(
                f"{name} = {trial.params[name]!r} was drawn, it is not in this space"
            )
    drawn: dict[str, tuple[Any, BaseDistribution]] = {}
    given: dict[str, Scalar] = {}  # so far, as Space.sample has it
    for name, rule in space.root.items():
        if not isinstance(rule, Choice | Range):
            given[name] = rule
        elif rule.applies(given):
            drawn[name] = _drawn(name, flat[name], rule, trial.distributions.get(name))
            given[name] = flat[name]
    for name, expected in (flatten(Params()) | given).items():
        if flat[name] != expected:
            raise _DisagreesError(f"{name} = {flat[name]!r}, here it is {expected!r}")
    return drawn


def _drawn(
    name: str, value: Scalar, rule: Choice | Range, theirs: BaseDistribution | None
) -> tuple[Any, BaseDistribution]:
    if not rule.holds(value):
        raise _DisagreesError(f"{name} = {value!r} lies outside {_described(rule)}")
    fixed = FixedTrial({name: rule.extremes()[0]})
    rule.suggest(fixed, name)
    ours = fixed.distributions[name]
    if theirs is not None and _kind(theirs) != _kind(ours):
        raise _DisagreesError(
            f"{name} = {value!r} was drawn from {_kind(theirs)}, here from {_kind(ours)}"
        )
    return ours.to_external_repr(ours.to_internal_repr(value)), ours


def _described(rule: Choice | Range) -> str:
    if isinstance(rule, Choice):
        return "the choices " + ", ".join(str(value) for value in rule.choice)
    return f"{'the whole numbers ' if rule.whole else ''}{rule.low:g} to {rule.high:g}"


def _kind(distribution: BaseDistribution) -> str:
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        return "choices"
    numbers = "whole numbers" if isinstance(distribution, IntDistribution) else "a range"
    return f"{numbers} on a log scale" if distribution.log else numbers
