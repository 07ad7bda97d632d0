"""The experiment's YAML: read, checked, and every path in it resolved."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from search.document import located, read_document, validate_document
from search.location import Place, open_place
from search.objectives import COSTS, Limited, Metric, Objective
from search.params import Config, Share
from search.paths import Location, NodeLocation, SourceLocation, StudyLocation, on_this_node
from search.space import Space

Treatment = Literal["drop", "error", "keep"]


class FolderSource(Config):
    """A folder of class folders, with or without split folders above them."""

    folder: SourceLocation = Field(description="local, s3://bucket/prefix or gs://bucket/prefix")
    name: str | None = Field(None, description="of this source; the folder's name if absent")


class TableSource(Config):
    """A CSV or Parquet table with a row an image."""

    table: SourceLocation = Field(description="local, or an s3:// or gs:// URL")
    images: list[SourceLocation] = Field(
        min_length=1, description="folders to look for the images in; local, or URLs"
    )
    columns: dict[str, str | None] = Field(
        description="ours: theirs; image and label are needed, null leaves one out"
    )
    name: str | None = Field(None, description="of this source; the table's folder if absent")

    @model_validator(mode="after")
    def _needed(self) -> Self:
        missing = [name for name in ("image", "label") if not self.columns.get(name)]
        if missing:
            raise ValueError(f"columns must name the table's column for {' and '.join(missing)}")
        return self


def _kind_of_source(source: Any) -> str:
    has_table = isinstance(source, TableSource) or (isinstance(source, dict) and "table" in source)
    return "table" if has_table else "folder"


Source = Annotated[
    Annotated[FolderSource, Tag("folder")] | Annotated[TableSource, Tag("table")],
    Discriminator(_kind_of_source),
]


class DatasetConfig(Config):
    """Which images, and what their labels mean."""

    sources: list[Source] = Field(min_length=1)
    classes: dict[str, list[str] | Literal["*"]] | None = Field(
        None, description='class: raw labels, "*" takes the rest; absent: one class per raw label'
    )
    positive: str | None = Field(None, description="the class that must not be missed")

    @model_validator(mode="after")
    def _positive_is_a_class(self) -> Self:
        if self.classes is not None and self.positive not in (None, *self.classes):
            raise ValueError(f"positive {self.positive!r} is none of {', '.join(self.classes)}")
        return self


class AuditConfig(Config):
    """What to do about each kind of finding: drop the images, stop with an error, or keep them."""

    damaged: Literal["drop", "error"] = Field(
        "drop", description="zero-byte, unreadable or truncated files; there is nothing to keep"
    )
    tiny: Treatment = "keep"
    non_rgb: Treatment = "keep"
    duplicates: Treatment = Field("drop", description="same file or pixels; one copy stays")
    near_duplicates: Treatment = Field("keep", description="kept ones share a group of the splits")
    label_conflicts: Treatment = Field(
        "error", description="one image under two labels; drop keeps one where the class agrees"
    )
    leaks: Treatment = Field(
        "error", description="across a given split; drop takes the training side's images out"
    )
    missing_metadata: Treatment = "keep"
    min_side: PositiveInt = Field(32, description="pixels; smaller images are tiny")
    near_distance: int = Field(
        28, ge=0, le=40, description="bits of 256 that two near-duplicates' hashes may differ in"
    )


class SplitsConfig(Config):
    """How images are divided: sealed test, calibration slice, folds."""

    given: bool = Field(False, description="use the data's own split column for the test")
    test: float = Field(0.2, ge=0, lt=1, description="share sealed away until evaluation")
    calibration: float = Field(0.15, ge=0, lt=1, description="share held back from the search")
    folds: PositiveInt = Field(4, description="1 means one holdout")
    holdout: float = Field(0.2, gt=0, lt=1, description="share of the rest, where folds is 1")

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.test + self.calibration >= 0.9:
            raise ValueError(f"test + calibration is {self.test + self.calibration:g}, keep < 0.9")
        return self


class WeightsConfig(Config):
    """Where pretrained weights come from, and which backbones may be asked for."""

    folder: Location | None = Field(None, description="of <timm name>.safetensors files")
    allow: list[str] = Field(default=[], description="timm names beyond the built-in list")


class PolicyConfig(Config):
    """What the operating point must do: reach a sensitivity, or cost the least."""

    sensitivity: Share | None = Field(None, description="at least this; then most specificity")
    cost_ratio: float | None = Field(
        None, gt=0, description="cost of a miss in false alarms; then least cost"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.sensitivity is None) == (self.cost_ratio is None):
            raise ValueError("say exactly one of sensitivity and cost_ratio")
        return self


class FidelityConfig(Config):
    """How long trials train, and how ASHA thins them out."""

    max_epochs: PositiveInt = Field(9, description="epochs of a trial that is never stopped")
    grace: PositiveInt = Field(1, description="epochs before the first rung")
    reduction: int = Field(3, ge=2, description="ASHA keeps one trial in this many at each rung")
    patience: PositiveInt | None = Field(None, description="epochs without a gain before a stop")
    finalists: int = Field(3, ge=0, description="best trials that go on to the remaining folds")
    image_size: int | None = Field(
        None, ge=16, le=1024, description="pixels of the finalists' second rung; none if absent"
    )


class PortfolioConfig(Config):
    """The first trials: known-good fixed recipes, and the user's own."""

    recipes: list[str] | Literal["all"] = Field("all", description="names in search/portfolio.yaml")
    override: dict[str, Any] = Field(default={}, description="params set in every recipe")
    file: Location | None = Field(None, description="a YAML list of params to try as well")


class BudgetConfig(Config):
    """How much a study may spend."""

    trials: PositiveInt = 12
    minutes: PositiveFloat | None = Field(None, description="of wall time, over all restarts")
    gpu_hours: PositiveFloat | None = Field(None, description="over all trials and restarts")
    keep_weights: PositiveInt = Field(5, description="trials whose weights stay on disk")


class ResourcesConfig(Config):
    """What one trial occupies."""

    cpu: PositiveInt = Field(1, description="of each worker; as many threads train")
    gpu: float = Field(0, ge=0, le=1, description="of each worker: a share, or a whole one")
    workers: PositiveInt = Field(1, description="processes that train one trial together")
    shard: bool = Field(
        False, description="each worker decodes and holds its part of the images alone"
    )
    grow: PositiveInt | None = Field(
        None, description="trials at once that a cluster which starts nodes itself makes room for"
    )

    @model_validator(mode="after")
    def _workers_share_no_gpu(self) -> Self:
        if self.workers > 1 and self.gpu not in (0, 1):
            raise ValueError(f"{self.workers} workers need gpu 0 or 1 each, it is {self.gpu:g}")
        if self.shard and self.workers == 1:
            raise ValueError("shard divides the images among workers; set workers above 1")
        return self


class TrackingConfig(Config):
    """Where else a study's numbers go; TensorBoard files are always written."""

    mlflow: str | None = Field(None, description="tracking URI of an MLflow server")


SamplerName = Literal["tpe", "gp", "cmaes", "nsga2", "random", "qmc"]


# What of the policy an objective at the operating point goes by.
POLICY_OF = {"specificity_at_sensitivity": "sensitivity", "cost": "cost_ratio"}


class ExperimentConfig(Config):
    """One experiment: everything a study, its ensemble and its service are made from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    seed: int = Field(0, ge=0, lt=2**31)
    output: Location = Field(description="folder that receives study/ and bundle/")
    study: StudyLocation | None = Field(
        None, description="the study folder, local or s3://bucket/prefix; <output>/study if absent"
    )
    cache: NodeLocation | None = Field(
        None,
        description="decoded images; <output>/cache if absent. $NAME is what each node says it is",
    )
    cache_gb: PositiveFloat | None = Field(
        None, description="of decoded images on one node; those not in use make room for others"
    )
    dataset: DatasetConfig
    audit: AuditConfig = AuditConfig()
    splits: SplitsConfig = SplitsConfig()
    weights: WeightsConfig = WeightsConfig()
    policy: PolicyConfig = PolicyConfig(sensitivity=0.95)
    objective: Metric | Annotated[list[Objective], Field(min_length=1)] = Field(
        "nll", description="what trials are ranked by; several give a Pareto front"
    )
    constraints: dict[Limited, PositiveFloat] = Field(default={}, description="upper bounds")
    sampler: SamplerName = "tpe"
    storage: str | None = Field(
        None, description="RDB URL of the Optuna storage; SQLite in the study folder if absent"
    )
    space: Space
    portfolio: PortfolioConfig = PortfolioConfig()
    fidelity: FidelityConfig = FidelityConfig()
    budget: BudgetConfig = BudgetConfig()
    resources: ResourcesConfig = ResourcesConfig()
    tracking: TrackingConfig = TrackingConfig()
    ensemble: dict[str, Any] = Field(default={}, description="checked by ensemble/config.py")
    pipeline: dict[str, Any] = Field(
        default={}, description="checked by cluster/pipeline/config.py"
    )

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        if problem := self._objectives_problem():
            raise located(ValueError(problem), "objective")
        return self

    def _objectives_problem(self) -> str | None:
        first, *others = self.objectives
        if first in COSTS or len({first, *others}) != len(self.objectives):
            return (
                f"{', '.join(self.objectives)}: name each once, a metric of the probabilities "
                "first, which is what trials are stopped by"
            )
        for name in self.objectives:
            if name in POLICY_OF and self.dataset.positive is None:
                return f"{name} needs a positive class; set dataset.positive"
            if name in POLICY_OF and getattr(self.policy, POLICY_OF[name]) is None:
                return f"{name} needs policy.{POLICY_OF[name]}; set it in place of the other"
        return None

    @property
    def objectives(self) -> tuple[str, ...]:
        """One or several; trials are stopped and weights kept by the first."""
        return (self.objective,) if isinstance(self.objective, str) else tuple(self.objective)

    @property
    def bounds(self) -> dict[str, float]:
        """The constraints, by name."""
        return {str(name): bound for name, bound in self.constraints.items()}

    @property
    def study_folder(self) -> Place:
        return self.output / "study" if self.study is None else open_place(self.study)

    @property
    def bundle_folder(self) -> Path:
        return self.output / "bundle"

    @property
    def cache_folder(self) -> Path:
        """Of this machine: variables of the environment are put in here."""
        return self.output / "cache" if self.cache is None else on_this_node(self.cache)

    @property
    def cache_bytes(self) -> int | None:
        """The most that maps on one machine may take."""
        return None if self.cache_gb is None else int(self.cache_gb * 1e9)


def load_config(path: Path) -> ExperimentConfig:
    """Read and check an experiment's YAML.

    Raises:
        ConfigError: naming the file, the line, the key and the rule it breaks.
    """
    return validate_document(ExperimentConfig, *read_document(path), path)
