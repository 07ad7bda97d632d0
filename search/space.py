"""The search space: what the YAML allows for each param, and sampling from it."""

import math
from collections.abc import Mapping
from typing import Any, Self

import optuna
from optuna.distributions import BaseDistribution
from pydantic import RootModel, ValidationError, model_validator

from search.document import located
from search.params import Augmentation, Params
from search.rules import Choice, Conditional, Range, Rule, Scalar, possible, shown

__all__ = ["Choice", "Conditional", "Range", "Scalar", "Space", "flatten", "unflatten"]

Demand = tuple[str, str, list[Scalar]]  # a param is there only where another has one of the values


class Space(RootModel[dict[str, Rule]]):
    """Param name, dotted for nested ones (`augment.rotation`): a rule, or a fixed value."""

    @model_validator(mode="after")
    def _every_rule_is_possible(self) -> Self:
        demands: dict[str, list[Demand]] = {}
        for name, rule in self.root.items():
            try:
                _check_values(name, rule)
                demands[name] = self._demands(name, demands)
            except ValueError as error:
                raise located(error, name) from error
        return self

    def _demands(self, name: str, above: Mapping[str, list[Demand]]) -> list[Demand]:
        """All that must hold for a param to be there, by itself or by what it depends on."""
        rule = self.root[name]
        when = rule.when if isinstance(rule, Conditional) else {}
        for key, allowed in when.items():
            if key not in above:
                raise ValueError(f"{name} depends on {key!r}, which is not defined above it")
            if not possible(self.root[key], [allowed]):
                can = shown(self.root[key])
                raise ValueError(f"when {key} is one of {allowed}, but {key} can only be {can}")
        demands = [(name, key, allowed) for key, allowed in when.items()]
        demands += [demand for key in when for demand in above[key]]
        for key in dict.fromkeys(key for _, key, _ in demands):
            here = {by: allowed for by, other, allowed in demands if other == key}
            if not possible(self.root[key], list(here.values())):
                needs = ", ".join(f"{by} needs {allowed}" for by, allowed in here.items())
                raise ValueError(f"it never applies; of {key}, {needs}")
        return demands

    def sample(self, trial: optuna.trial.BaseTrial) -> Params:
        """Ask a trial for every param that applies (define-by-run)."""
        flat: dict[str, Scalar] = {}
        for name, rule in self.root.items():
            if not isinstance(rule, Conditional):
                flat[name] = rule
            elif rule.applies(flat):
                flat[name] = rule.suggest(trial, name)
        return unflatten(flat)

    def distributions(self) -> dict[str, BaseDistribution]:
        """What every trial draws from: the rules without a condition; nothing for fixed values."""
        rules = {n: rule for n, rule in self.root.items() if isinstance(rule, Choice | Range)}
        trial = optuna.trial.FixedTrial({name: rule.extremes()[0] for name, rule in rules.items()})
        for name, rule in rules.items():
            if not rule.when:
                rule.suggest(trial, name)
        return dict(trial.distributions)

    def corners(self) -> list[Params]:
        """A draw for each backbone, loss and size: enough to see whether they can be built."""
        rules = {n: rule for n, rule in self.root.items() if isinstance(rule, Choice | Range)}
        firsts = {name: rule.extremes()[0] for name, rule in rules.items()}
        draws = [firsts]
        for name in {"backbone", "loss", "image_size"} & rules.keys():
            draws += [firsts | {name: value} for value in rules[name].extremes()]
        return [self.sample(optuna.trial.FixedTrial(draw)) for draw in draws]

    def inside(self, params: Params) -> dict[str, Scalar]:
        """Those values of given params that this space could have sampled itself."""
        flat = flatten(params)
        seen: dict[str, Scalar] = {}
        found: dict[str, Scalar] = {}
        for name, rule in self.root.items():
            if isinstance(rule, Choice | Range) and rule.applies(seen) and rule.holds(flat[name]):
                found[name] = flat[name]
            seen[name] = flat[name]
        return found

    def register(self, trial: optuna.trial.BaseTrial, params: Params) -> None:
        """Let a trial with given params count as a draw, as far as the space holds them.

        The values must be enqueued with the trial; then each suggestion returns its own.
        """
        for name in self.inside(params):
            rule = self.root[name]
            if isinstance(rule, Choice | Range):
                rule.suggest(trial, name)


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Params from dotted names.

    Raises:
        pydantic.ValidationError: for an unknown name or a value out of its range.
    """
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if name.startswith("augment."):
            nested.setdefault("augment", {})[name.removeprefix("augment.")] = value
        else:
            nested[name] = value
    return Params.model_validate(nested)


def flatten(params: Params) -> dict[str, Scalar]:
    """Dotted names of every param, defaults included."""
    flat: dict[str, Scalar] = params.model_dump(exclude={"augment"})
    augment = params.augment.model_dump()
    return flat | {f"augment.{name}": value for name, value in augment.items()}


def _check_values(name: str, rule: Rule) -> None:
    values = rule.extremes() if isinstance(rule, Choice | Range) else [rule]
    for value in values:
        _check(name, value)
    if isinstance(rule, Choice):
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice:
            raise ValueError(f"choice names {twice[0]!r} twice")
    elif isinstance(rule, Range) and not rule.whole and rule.low < rule.high:
        try:
            _check(name, math.nextafter(rule.low, rule.high))
        except ValueError as error:
            raise ValueError(f"{name} takes whole numbers; give such bounds") from error


def _check(name: str, value: Scalar) -> None:
    names = [*Params.model_fields, *(f"augment.{a}" for a in Augmentation.model_fields)]
    if name not in names or name == "augment":
        raise ValueError(f"{name!r} is not a param; the params are {', '.join(names)}")
    try:
        unflatten({name: value})
    except ValidationError as error:
        rule = error.errors()[0]["msg"]
        raise ValueError(f"{name} cannot be {value!r}: {rule}") from error
