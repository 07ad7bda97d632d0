"""The `pipeline:` section of an experiment's YAML."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ensemble.versus import AT_POINT, Metric
from search.config import ExperimentConfig
from search.document import located, read_document, validate_document
from search.errors import ConfigError
from search.params import Config
from search.paths import Location


class GateRule(Config):
    """The candidate is at most so much worse than the serving bundle, with 95% confidence."""

    metric: Metric = Field(
        description="sensitivity and specificity are at each bundle's first operating point"
    )
    margin: float = Field(ge=0, lt=10, allow_inf_nan=False, description="in the metric's own unit")


class CanaryConfig(Config):
    """What a release answers at first, and what it must show.

    Counts are of the replica that answers: of several, each one sees its own images.
    """

    percent: float = Field(10, gt=0, le=100, description="of the images")
    images: PositiveInt = Field(200, description="compared images that it is judged by")
    minutes: PositiveFloat = Field(60, description="that it may take to compare so many")
    disagreement: float = Field(
        0.10, gt=0, lt=1, description="share of images decided otherwise, its 95% upper bound"
    )
    failures: int = Field(
        0, ge=0, description="of its own answers, and comparisons that could not be made"
    )


class PipelineConfig(Config):
    """Where a bundle goes once it is built, and by which rules."""

    service: str | None = Field(
        None, description="URL of the service; null: the pipeline ends after the gate"
    )
    releases: Location | None = Field(
        None,
        description="folder of bundles that the service sees under the same path; "
        "<output>/releases if absent",
    )
    evaluate: list[Location] = Field(
        default=[], description="configs whose labelled data sets the bundle is evaluated on"
    )
    against: Location | None = Field(
        None, description="bundle to compare with where there is no service, or its own is not seen"
    )
    gate: list[GateRule] = Field(default=[GateRule(metric="nll", margin=0.01)], min_length=1)
    min_images: PositiveInt = Field(
        30, description="sealed test images, new to both bundles, that the gate needs"
    )
    canary: CanaryConfig = CanaryConfig()
    api_key_env: str = Field(
        "CONSILIUM_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        description="environment variable that holds the key with scope admin",
    )

    @model_validator(mode="after")
    def _service_is_an_address(self) -> Self:
        if self.service is not None and (problem := _problem_of(self.service)):
            raise located(ValueError(problem), "service")  # without the URL: it may hold a secret
        return self

    @model_validator(mode="after")
    def _metrics_once(self) -> Self:
        metrics = [rule.metric for rule in self.gate]
        if len(set(metrics)) < len(metrics):
            raise ValueError("gate: name each metric once")
        return self


def _problem_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known, parts = False, urlsplit("")
    if parts.username is not None or parts.password is not None:
        return "no user or password in the URL; a key comes from api_key_env"
    if not known or parts.query or parts.fragment:
        return "an address is expected, http://host:8000 say"
    return None


def pipeline_config(path: Path, experiment: ExperimentConfig) -> PipelineConfig:
    """The section of an experiment that was read from `path`, checked.

    Raises:
        ConfigError: with file, line, key and rule.
    """
    _, tree = read_document(path)
    config = validate_document(PipelineConfig, experiment.pipeline, tree, path, prefix="pipeline")
    at_point = [rule.metric for rule in config.gate if rule.metric in AT_POINT]
    if at_point and experiment.dataset.positive is None:
        raise ConfigError(
            f"{path}: pipeline.gate: {at_point[0]} is about a positive class; set dataset.positive"
        )
    if config.releases is None:
        return config.model_copy(update={"releases": experiment.output / "releases"})
    return config
