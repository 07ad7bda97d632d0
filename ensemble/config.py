"""The `ensemble:` section of an experiment's YAML."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ensemble.decision.points import PointConfig
from ensemble.selection.results import Budget
from search.config import ExperimentConfig, PolicyConfig
from search.document import read_document, validate_document
from search.errors import ConfigError
from search.params import Config
from search.paths import Location

Views = Literal["none", "flips", "dihedral"]


class GateConfig(Config):
    """What must hold on the sealed test before a bundle is written: exactly one rule."""

    metric: str = Field(description="sensitivity and specificity are at the first point")
    at_least: float | None = Field(None, allow_inf_nan=False)
    at_most: float | None = Field(None, allow_inf_nan=False)
    not_worse_than: Literal["best single"] | None = Field(
        None, description="no worse than the far end of its interval"
    )
    parity: float | None = Field(
        None, gt=0, description="largest gap between the subgroups of one column"
    )
    subgroups: bool = Field(False, description="at_least and at_most hold in every subgroup")
    min_cases: PositiveInt = Field(20, description="smaller subgroups are let be")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        rules = (self.at_least, self.at_most, self.not_worse_than, self.parity)
        if sum(rule is not None for rule in rules) != 1:
            raise ValueError("say exactly one of at_least, at_most, not_worse_than, parity")
        if self.subgroups and self.at_least is None and self.at_most is None:
            raise ValueError("subgroups goes with at_least or at_most")
        return self


class CascadeConfig(Config):
    """When members may answer without the others."""

    disagreement: float = Field(
        0.02, gt=0, lt=0.5, description="upper bound of the share decided otherwise than by all"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of that bound")


class NoveltyConfig(Config):
    """How images unlike the training data are told."""

    flagged: float = Field(0.02, gt=0, lt=0.5, description="share of held-back cases it may flag")
    images: Location | None = Field(
        None, description="folder of images that are not lesions; added to those made for the test"
    )


class EnsembleConfig(Config):
    """How candidates become one bundle."""

    budget: Budget = Budget()
    operating_points: dict[str, PointConfig] = Field(
        default={}, description="by name, the first is the default; empty: the search's policy"
    )
    refit: bool = Field(
        False, description="train one network a member on all folds, in place of its fold networks"
    )
    test_time_augmentation: Literal["auto"] | Views = "auto"
    cascade: CascadeConfig | None = CascadeConfig()
    out_of_distribution: NoveltyConfig | None = NoveltyConfig()
    int8: bool = Field(False, description="also quantise members to 8 bits, and measure the loss")
    subgroups: list[str] | None = Field(
        None, description="metadata columns; all with few enough values if absent"
    )
    corruptions: NonNegativeInt = Field(200, description="test images that are made worse; 0: none")
    examples: int = Field(12, ge=0, le=100, description="wrong test images shown in the report")
    bootstrap: int = Field(2000, ge=100, le=100_000, description="replicates of every interval")
    gates: list[GateConfig] = Field(default=[], description="what blocks the bundle if it fails")
    licences: str = Field("not stated", description="of the data and pretrained weights")
    golden: int = Field(4, ge=1, le=64, description="images kept for checking a loaded bundle")
    version: str = Field("1", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")


def ensemble_config(path: Path, experiment: ExperimentConfig) -> EnsembleConfig:
    """The section of an experiment that was read from `path`, checked.

    Raises:
        ConfigError: with file, line, key and rule.
    """
    _, tree = read_document(path)
    config = validate_document(EnsembleConfig, experiment.ensemble, tree, path, prefix="ensemble")
    if experiment.dataset.positive is None and config.operating_points:
        raise ConfigError(
            f"{path}: ensemble.operating_points are about a positive class; set dataset.positive"
        )
    if config.operating_points or experiment.dataset.positive is None:
        return config
    point = point_of(experiment.policy)
    return config.model_copy(update={"operating_points": {point_name(point): point}})


def point_of(policy: PolicyConfig) -> PointConfig:
    """The search's policy as an operating point."""
    return PointConfig(sensitivity=policy.sensitivity, cost_ratio=policy.cost_ratio)


def point_name(point: PointConfig) -> str:
    """A short name that says what is asked for: sensitivity_0.95, cost_ratio_10."""
    return f"{point.kind}_{getattr(point, point.kind):g}"
