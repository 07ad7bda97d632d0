"""The story: all that a report or a card is written from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.calibration.results import CalibratorWorth
from ensemble.evaluation.results import (
    Estimate,
    Evaluation,
    Example,
    LeaderboardRow,
    PointResult,
    Verdict,
)
from ensemble.manifest import Manifest
from ensemble.selection.results import Selection

OURS = "ensemble"  # who the bundle is in the leaderboard
Epoch = Mapping[str, float | None]


class Band(Protocol):
    """Two thresholds that were looked at for a refer band, and what they do."""

    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...
    @property
    def sensitivity(self) -> float: ...
    @property
    def specificity(self) -> float: ...
    @property
    def referred(self) -> float: ...


class ViewsWorth(Protocol):
    """What test-time augmentation is worth: log loss on held-back images, and its cost."""

    @property
    def views(self) -> str: ...
    @property
    def nll(self) -> float: ...
    @property
    def difference(self) -> float: ...
    @property
    def standard_error(self) -> float: ...
    @property
    def cost(self) -> float: ...
    @property
    def chosen(self) -> bool: ...


@dataclass(frozen=True)
class Curve:
    """One trial's history: metrics an epoch, None where undefined."""

    name: str
    epochs: Sequence[Epoch]
    is_member: bool


@dataclass(frozen=True)
class Story:
    """A bundle and its evaluation; what an external evaluation does not know stays empty.

    `probs` is (n_images, n_classes) calibrated, `labels` (n_images,) class indices, both in the
    order of `evaluation.classes`.
    """

    title: str
    evaluation: Evaluation
    probs: NDArray[np.float64]
    labels: NDArray[np.int64]
    manifest: Manifest | None = None
    selection: Selection | None = None
    candidate_names: Sequence[str] = ()
    calibrators: Sequence[CalibratorWorth] = ()
    refer_fronts: Mapping[str, Sequence[Band]] = field(default_factory=dict)
    views: Sequence[ViewsWorth] = ()
    leaderboard: Sequence[LeaderboardRow] = ()
    verdicts: Sequence[Verdict] = ()
    examples: Sequence[Example] = ()
    curves: Sequence[Curve] = ()
    notes: Sequence[str] = ()

    @property
    def is_sealed(self) -> bool:
        """Whether the images are the study's own test: only a build knows how it selected."""
        return self.selection is not None

    @property
    def point(self) -> PointResult | None:
        """The default operating point's result."""
        return next(iter(self.evaluation.operating_points), None)

    def candidate(self, index: int) -> str:
        """A candidate's name, or its number where names are not known."""
        names = self.candidate_names
        return names[index] if index < len(names) else f"candidate {index}"

    def metric(self, name: str) -> Estimate:
        """A metric of the whole; undefined where it was not measured."""
        return self.evaluation.metrics.get(name, Estimate(value=None))
