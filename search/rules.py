"""What the space's YAML may say of one param: a value, a choice or a range, and a condition."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self

import optuna
from pydantic import BeforeValidator, Discriminator, Field, FiniteFloat, Tag, model_validator

from search.params import Config


def _number(value: Any) -> Any:
    # PyYAML reads 1e-4 as text, and no param has a name that is a number.
    try:
        return float(value) if isinstance(value, str) and math.isfinite(float(value)) else value
    except ValueError:
        return value


Scalar = Annotated[bool | int | float | str, BeforeValidator(_number)]


class Conditional(Config):
    """A param that may depend on earlier ones."""

    when: dict[str, list[Scalar]] = Field(
        default={}, description="earlier param: the values (or name patterns) it must have"
    )

    def applies(self, flat: Mapping[str, Scalar]) -> bool:
        """Whether every condition holds; one on a param that was left out does not."""
        return all(
            key in flat and _matches(flat[key], allowed) for key, allowed in self.when.items()
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

    low: int | FiniteFloat
    high: int | FiniteFloat
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low > 0, it is {self.low:g}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> Scalar:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, float(self.low), float(self.high), log=self.log)

    def extremes(self) -> list[Scalar]:
        return [self.low, self.high]

    def holds(self, value: Scalar) -> bool:
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return not self.whole or float(value).is_integer()


def _kind(rule: Any) -> str | None:
    if isinstance(rule, Choice) or (isinstance(rule, Mapping) and "choice" in rule):
        return "choice"
    if isinstance(rule, Range | Mapping):
        return "range"
    return "fixed" if isinstance(rule, bool | int | float | str) else None


Rule = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Range, Tag("range")]
    | Annotated[Scalar, Tag("fixed")],
    Discriminator(
        _kind,
        custom_error_type="rule",
        custom_error_message="give one value, a choice of several, or low and high",
    ),
]


def possible(rule: Rule, conditions: Sequence[Sequence[Scalar]]) -> bool:
    """Whether some value of a rule meets all of the conditions."""
    if isinstance(rule, Range):
        values = [value for allowed in conditions for value in allowed if rule.holds(value)]
    else:
        values = rule.choice if isinstance(rule, Choice) else [rule]
    return any(all(_matches(value, allowed) for allowed in conditions) for value in values)


def shown(rule: Rule) -> str:
    """What a rule allows, for people."""
    if isinstance(rule, Range):
        return f"{rule.low:g} to {rule.high:g}"
    return ", ".join(str(value) for value in (rule.choice if isinstance(rule, Choice) else [rule]))


def _matches(value: Scalar, allowed: Sequence[Scalar]) -> bool:
    """Whether a value is among those allowed, or its name fits a pattern there."""
    return any(
        fnmatchcase(value, one) if isinstance(value, str) and isinstance(one, str) else value == one
        for one in allowed
    )
