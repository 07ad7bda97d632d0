"""The `ensemble:` section of an experiment's YAML."""

from pathlib import Path

from pydantic import Field, PositiveInt

from search.config import ExperimentConfig, PolicyConfig
from search.document import read_document, validate_document
from search.params import Config


class EnsembleConfig(Config):
    """How candidates become one bundle."""

    members: PositiveInt = Field(5, description="at most this many")
    operating_points: dict[str, PolicyConfig] = Field(
        default={}, description="by name, the first is the default; empty: the search's policy"
    )
    golden: int = Field(4, ge=1, le=64, description="images kept for checking a loaded bundle")
    version: str = Field("1", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")


def ensemble_config(path: Path, experiment: ExperimentConfig) -> EnsembleConfig:
    """The section of an experiment that was read from `path`, checked.

    Raises:
        ConfigError: with file, line, key and rule.
    """
    _, tree = read_document(path)
    config = validate_document(EnsembleConfig, experiment.ensemble, tree, path, prefix="ensemble")
    if config.operating_points or experiment.dataset.positive is None:
        return config
    policy = experiment.policy
    return config.model_copy(update={"operating_points": {policy_name(policy): policy}})


def policy_name(policy: PolicyConfig) -> str:
    """A short name that says what is asked for: sensitivity_0.95, cost_ratio_10."""
    if policy.sensitivity is not None:
        return f"sensitivity_{policy.sensitivity:g}"
    return f"cost_ratio_{policy.cost_ratio:g}"
