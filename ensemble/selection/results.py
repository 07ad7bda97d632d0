"""What a selection finds, as it lies in metrics.json."""

from typing import Literal

from pydantic import Field

from search.params import Config

Choice = Literal["best single", "uniform top-k", "greedy", "all"]
# Simplest first: of choices as good as the best, within one standard error, the first is shipped.
CHOICES: tuple[Choice, ...] = ("best single", "uniform top-k", "greedy", "all")


class Budget(Config):
    """Upper bounds on the members together; None is no bound."""

    members: int | None = Field(5, ge=1, description="candidates with a weight")
    params_m: float | None = Field(None, gt=0, description="parameters in millions")
    latency_ms: float | None = Field(
        None, gt=0, description="measured, one image on one CPU thread, all members one after other"
    )


class ChoiceWorth(Config):
    """What a way of choosing members is worth on groups of images it has not seen.

    Log losses are of the pool after a temperature that was fitted on the choosing part.
    """

    choice: str
    nll: float = Field(description="cross-validated, mean of all images")
    difference: float = Field(description="from the best choice's, by image; 0 for the best")
    standard_error: float = Field(description="of the difference, clustered by group")
    members: int = Field(description="of the choice on all images")
    shipped: bool = False


class Pair(Config):
    """How alike two candidates are."""

    first: int = Field(description="index of the candidate")
    second: int
    disagreement: float = Field(description="share of images with different most probable classes")
    error_correlation: float = Field(description="of one minus the label's probability")
    near_copy: bool


class Selection(Config):
    """Which candidates became members, and what the other ways would have been worth."""

    choice: Choice
    weights: list[float] = Field(description="by candidate, summing to 1; 0 means left out")
    choices: list[ChoiceWorth]
    trajectory: list[float] = Field(description="log loss of the pool after each greedy pick")
    pairs: list[Pair]
    notes: list[str] = Field(default=[], description="near copies, candidates beyond the budget")
