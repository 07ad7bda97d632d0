"""The search space: what the YAML allows for each param, and sampling from it."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self

import optuna
from pydantic import Discriminator, Field, RootModel, Tag, ValidationError, model_validator

from search.params import Augmentation, Config, Params

Scalar = bool | int | float | str


class Conditional(Config):
    """A param that may depend on earlier ones."""

    when: dict[str, list[Scalar]] = Field(
        default={}, description="earlier param: the values (or name patterns) it must have"
    )

    def applies(self, flat: Mapping[str, Scalar]) -> bool:
        """Whether every condition holds; one on a param that was left out does not."""
        return all(
            key in flat and any(_matches(flat[key], allowed) for allowed in values)
            for key, values in self.when.items()
        )


class Choice(Conditional):
    """One of several values."""

    choice: list[Scalar] = Field(min_length=1)

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> Scalar:
        value: Scalar = trial.suggest_categorical(name, self.choice)  # type: ignore[assignment]
        return value

    def extremes(self) -> list[Scalar]:
        return self.choice

    def holds(self, value: Scalar) -> bool:
        return value in self.choice


class Range(Conditional):
    """A number between two bounds, both allowed; whole numbers where both bounds are."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low > 0, it is {self.low:g}")
        return self

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> Scalar:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, float(self.low), float(self.high), log=self.log)

    def extremes(self) -> list[Scalar]:
        return [self.low, self.high]

    def holds(self, value: Scalar) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def _kind(rule: Any) -> str:
    if isinstance(rule, Choice) or (isinstance(rule, Mapping) and "choice" in rule):
        return "choice"
    return "range" if isinstance(rule, Range | Mapping) else "fixed"


Rule = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Range, Tag("range")]
    | Annotated[Scalar, Tag("fixed")],
    Discriminator(_kind),
]


class Space(RootModel[dict[str, Rule]]):
    """Param name, dotted for nested ones (`augment.rotation`): a rule, or a fixed value."""

    @model_validator(mode="after")
    def _every_rule_is_possible(self) -> Self:
        seen: list[str] = []
        for name, rule in self.root.items():
            for value in rule.extremes() if isinstance(rule, Choice | Range) else [rule]:
                _check(name, value)
            if isinstance(rule, Conditional):
                for other in rule.when:
                    if other not in seen:
                        raise ValueError(
                            f"{name} depends on {other!r}, which is not defined above it"
                        )
            seen.append(name)
        return self

    def sample(self, trial: optuna.trial.BaseTrial) -> Params:
        """Ask a trial for every param that applies (define-by-run)."""
        flat: dict[str, Scalar] = {}
        for name, rule in self.root.items():
            if not isinstance(rule, Conditional):
                flat[name] = rule
            elif rule.applies(flat):
                flat[name] = rule.suggest(trial, name)
        return unflatten(flat)

    def corners(self) -> list[Params]:
        """A draw for each backbone and each loss: enough to see whether they can be built."""
        rules = {n: rule for n, rule in self.root.items() if isinstance(rule, Choice | Range)}
        firsts = {name: rule.extremes()[0] for name, rule in rules.items()}
        draws = [firsts]
        for name in {"backbone", "loss"} & rules.keys():
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


def _check(name: str, value: Scalar) -> None:
    names = [*Params.model_fields, *(f"augment.{a}" for a in Augmentation.model_fields)]
    if name not in names or name == "augment":
        raise ValueError(f"{name!r} is not a param; the params are {', '.join(names)}")
    try:
        unflatten({name: value})
    except ValidationError as error:
        rule = error.errors()[0]["msg"]
        raise ValueError(f"{name} cannot be {value!r}: {rule}") from error


def _matches(value: Scalar, allowed: Scalar) -> bool:
    if isinstance(value, str) and isinstance(allowed, str):
        return fnmatchcase(value, allowed)
    return value == allowed
