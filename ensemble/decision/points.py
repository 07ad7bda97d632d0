"""Operating points: what may be asked of one, and what a bundle says about it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from search.params import Config, Share

Kind = Literal[
    "sensitivity",
    "false_negative_rate",
    "specificity",
    "cost_ratio",
    "youden",
    "threshold",
    "refer",
]
Decision = Literal["positive", "negative", "refer"]


class ReferConfig(Config):
    """Two thresholds: what lies between them goes to a person."""

    share: float = Field(0.2, gt=0, lt=1, description="of all images, at most this is referred")
    sensitivity: Share = Field(
        0.95, description="of positives, at least this is not called negative"
    )


class PointConfig(Config):
    """What an operating point must do: exactly one of the first seven."""

    sensitivity: Share | None = Field(None, description="at least this; then most specificity")
    false_negative_rate: Share | None = Field(
        None, description="expected, at most this, by conformal risk control"
    )
    specificity: Share | None = Field(None, description="at least this; then most sensitivity")
    cost_ratio: float | None = Field(
        None, gt=0, description="cost of a miss in false alarms; then least cost"
    )
    youden: Literal[True] | None = Field(None, description="most sensitivity + specificity")
    threshold: Share | None = Field(None, description="this one, whatever it does")
    refer: ReferConfig | None = Field(None, description="two thresholds, people between them")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="of the two-sided interval that a promise rests on"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.asked) != 1:
            raise ValueError(
                "say exactly one of sensitivity, false_negative_rate, specificity, cost_ratio, "
                "youden, threshold, refer"
            )
        return self

    @property
    def asked(self) -> list[Kind]:
        """The kinds that are set; one, once validated."""
        kinds: tuple[Kind, ...] = (
            "sensitivity", "false_negative_rate", "specificity", "cost_ratio", "youden",
            "threshold", "refer",
        )  # fmt: skip
        return [kind for kind in kinds if getattr(self, kind) is not None]

    @property
    def kind(self) -> Kind:
        return self.asked[0]


class OperatingPoint(Config):
    """A threshold on the positive class's calibrated probability, and what is known about it.

    Counts and rates are of held-back cases, one image of each group of linked ones.
    """

    name: str
    kind: Kind
    threshold: float = Field(ge=0, le=1, description="positive where the probability reaches it")
    refer_from: float | None = Field(
        None, ge=0, le=1, description="referred from here up to the threshold"
    )
    target: str = Field(description="what was asked for, in words")
    aim: float | None = Field(None, description="the rate or ratio that was asked for")
    confidence: float
    sensitivity: float = Field(description="achieved; referred positives are not missed")
    specificity: float = Field(description="achieved; referred negatives are no false alarms")
    referred: float = Field(0, description="share of the cases")
    sensitivity_interval: tuple[float, float] = Field(description="Clopper-Pearson at confidence")
    specificity_interval: tuple[float, float] = Field(description="Clopper-Pearson at confidence")
    n_positive: int
    n_negative: int
    certified: bool
    reason: str = Field(description="why it is certified, or why not")

    def decide(self, probability: float) -> Decision:
        """What a calibrated probability of the positive class comes to."""
        if probability >= self.threshold:
            return "positive"
        if self.refer_from is not None and probability >= self.refer_from:
            return "refer"
        return "negative"
