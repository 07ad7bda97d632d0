"""What a step of the pipeline is, and what all of them share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from cluster.pipeline.canary import Surroundings
from cluster.pipeline.config import PipelineConfig
from cluster.pipeline.service import Admin, Served, served_by
from cluster.pipeline.state import Inputs, Outcome
from ensemble.bundle import Bundle, load_bundle
from search.config import ExperimentConfig
from search.study.records import StudyFolder

if TYPE_CHECKING:
    from cluster.live import Mode

Say = Callable[[str], object]
Name = Literal["search", "ensemble", "evaluate", "gate", "canary"]


@dataclass(frozen=True)
class Result:
    """What a step's work came to.

    Attributes:
        ok: False stops the pipeline.
        final: the same inputs would come to the same, so that it is not tried again.
    """

    why: str
    outcome: Outcome = field(default_factory=dict)
    ok: bool = True
    final: bool = True


class Step(Protocol):
    """One step."""

    @property
    def name(self) -> Name: ...
    def needless(self) -> str | None:
        """Why there is nothing to do, whatever was done before."""

    def inputs(self) -> Inputs:
        """What the step's product depends on."""

    def stands(self, outcome: Outcome, /) -> bool:
        """Whether the product of an earlier time is still there."""

    def work(self, begun: datetime, /) -> Result:
        """Do it; `begun` is the first time's where it was interrupted."""


@dataclass
class Work:
    """What all steps share."""

    path: Path
    settings: ExperimentConfig
    config: PipelineConfig
    admin: Admin | None = None
    address: str | None = None
    trials: str | None = None
    mode: "Mode" = "live"
    say: Say = lambda _: None
    around: Surroundings | None = None

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.settings.study_folder)

    @cached_property
    def bundle(self) -> Bundle:
        """The candidate, verified; asked for once the ensemble stands."""
        return load_bundle(self.settings.bundle_folder)

    @property
    def digest(self) -> str:
        return self.bundle.manifest.digest

    @cached_property
    def served(self) -> Served | None:
        """The bundle that answered when the gate was reached."""
        return None if self.admin is None else served_by(self.admin)

    @property
    def serves_already(self) -> bool:
        return self.served is not None and self.served.digest == self.digest

    @property
    def releases(self) -> Path:
        return self.config.releases or self.settings.output / "releases"
