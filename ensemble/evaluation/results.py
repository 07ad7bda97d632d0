"""What an evaluation finds, as it lies in metrics.json: every rate with its interval.

`None` stands where a number is undefined: no positive image, one class only.
"""

from typing import Any

from pydantic import Field

from search.params import Config


class Estimate(Config):
    """A number and its 95% interval."""

    value: float | None
    low: float | None = None
    high: float | None = None


Estimates = dict[str, Estimate]  # by metric: auroc, nll, ... see ensemble/evaluation/table.py


class PointResult(Config):
    """What an operating point of the bundle does to these images.

    Intervals are Clopper-Pearson's, widened to the grouped bootstrap's where linked images make
    that one wider.
    """

    name: str
    target: str
    threshold: float
    refer_from: float | None = None
    certified: bool
    reason: str
    n_positive: int
    n_negative: int
    sensitivity: Estimate = Field(description="referred positives are not missed")
    specificity: Estimate = Field(description="referred negatives are no false alarms")
    ppv: Estimate = Field(description="positives among those called positive")
    npv: Estimate = Field(description="negatives among those called negative")
    referred: float = Field(0, description="share of the images")
    confusion: list[list[int]] = Field(
        description="rows negative, positive; columns called negative, referred, called positive"
    )


class ClassResult(Config):
    """One class against the rest."""

    name: str
    n: int
    metrics: Estimates


class Subgroup(Config):
    """The images with one value of a metadata column, or one band of ages."""

    column: str
    value: str
    n: int
    n_positive: int | None = None
    metrics: Estimates


class Corrupted(Config):
    """The bundle on images that were made worse on purpose; severity 0 is as they are."""

    kind: str
    severity: int = Field(ge=0, le=5)
    n: int
    metrics: Estimates


class Difference(Config):
    """The ensemble minus another on the same images, by the same bootstrap replicates."""

    against: str
    metrics: Estimates


class DecisionCurve(Config):
    """Net benefit by threshold probability, against treating all and treating none (0).

    Source: Vickers & Elkin, "Decision curve analysis", Medical Decision Making 2006.
    """

    thresholds: list[float]
    bundle: list[Estimate]
    treat_all: list[float]


class RiskCoverage(Config):
    """Share of wrong decisions among the most confident images, by the share that is kept."""

    coverage: list[float]
    risk: list[float]


class Contribution(Config):
    """What the pool loses without a member: its log loss minus the whole pool's."""

    member: str
    weight: float
    alone: float = Field(description="log loss of the member alone, calibrated by itself")
    loss_without: Estimate


class Example(Config):
    """An image that came out wrong, with the probability it was given."""

    image: str
    label: str
    probability: float
    thumbnail: str = Field(description="data URI, a small JPEG")


class Evaluation(Config):
    """All numbers of one bundle on one set of images."""

    n_images: int
    n_groups: int = Field(description="groups of linked images, which the bootstrap draws")
    classes: list[str]
    positive: str | None
    prevalence: dict[str, float] = Field(description="share of each class in these images")
    metrics: Estimates
    per_class: list[ClassResult]
    confusion: list[list[int]] = Field(description="rows are the true classes")
    operating_points: list[PointResult]
    subgroups: list[Subgroup] = Field(default=[])
    corruptions: list[Corrupted] = Field(default=[])
    differences: list[Difference] = Field(default=[])
    decision_curve: DecisionCurve | None = None
    risk_coverage: RiskCoverage | None = None
    contributions: list[Contribution] = Field(default=[])
    seen: int = Field(0, description="images left out, for the bundle was made from them")
    skipped: dict[str, str] = Field(default={}, description="path: why it could not be read")

    @property
    def positive_index(self) -> int | None:
        return None if self.positive is None else self.classes.index(self.positive)


class Verdict(Config):
    """A gate and whether it holds."""

    gate: str
    rule: str = Field(description="in words, with the figures")
    holds: bool
    details: dict[str, Any] = Field(default={})


class LeaderboardRow(Config):
    """One of those that are compared on the same images."""

    who: str
    what: str
    metrics: Estimates
    epochs: str = ""
