"""From a verdict to what the caller is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from ensemble.decision.points import OperatingPoint
from ensemble.runtime import at_prevalence
from search.errors import ConfigError
from serving.problems import ProblemError
from serving.schemas import ImagePrediction, ImageWarning, Uncertainty, UsedPoint
from serving.scoring.options import Options
from serving.scoring.panel import Panel, Verdict

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What is known of an image file besides its verdict.

    Attributes:
        sha256: of the file, hexadecimal.
        size: width and height in pixels, upright.
        statistics: of its pixels (see ensemble.profile.measure).
    """

    sha256: str
    size: tuple[int, int]
    statistics: Mapping[str, float]


def tell(
    panel: Panel,
    verdict: Verdict,
    seen: Seen,
    options: Options,
    *,
    warnings: Sequence[ImageWarning],
) -> ImagePrediction:
    """The prediction of one image.

    Raises:
        ProblemError: 422, for a prevalence that is none.
    """
    classes, probs = panel.manifest.classes, verdict.probs
    return ImagePrediction(
        probabilities=_by_class(classes, probs),
        at_prevalence=_shifted(panel, probs, options.prevalence),
        decision=verdict.decision,
        operating_point=None if verdict.decision is None else _used(verdict.point),
        uncertainty=Uncertainty(
            spread=_spread(panel, verdict),
            entropy=_entropy(probs),
        ),
        novel=verdict.novel,
        warnings=list(warnings),
        asked=len(verdict.member_probs),
        members={name: _by_class(classes, q) for name, q in verdict.member_probs.items()}
        if options.members
        else None,
        sha256=seen.sha256,
        width=seen.size[0],
        height=seen.size[1],
    )


def watched_probability(panel: Panel, verdict: Verdict) -> float:
    """The positive class's probability, or the largest where there is no such class."""
    positive = panel.bundle.positive_index
    return float(verdict.probs.max() if positive is None else verdict.probs[positive])


def check_prevalence(panel: Panel, wanted: Mapping[str, float]) -> None:
    """Refuse shares that are none before anything is scored.

    Raises:
        ProblemError: 422.
    """
    _shifted(panel, np.full(len(panel.manifest.classes), 1 / len(panel.manifest.classes)), wanted)


def _shifted(panel: Panel, probs: Floats, wanted: Mapping[str, float]) -> dict[str, float] | None:
    if not wanted:
        return None
    if not panel.manifest.prevalence:
        raise ProblemError(422, "invalid_prevalence", "this bundle knows no prevalence of its own")
    try:
        shifted = at_prevalence(panel.bundle, probs[None], wanted)[0]
    except ConfigError as error:
        raise ProblemError(422, "invalid_prevalence", str(error)) from error
    return _by_class(panel.manifest.classes, shifted)


def _used(point: OperatingPoint | None) -> UsedPoint | None:
    if point is None:
        return None
    return UsedPoint(
        name=point.name,
        threshold=point.threshold,
        refer_from=point.refer_from,
        certified=point.certified,
        reason=point.reason,
    )


def _spread(panel: Panel, verdict: Verdict) -> float | None:
    if len(verdict.member_probs) < 2:  # 0 would read as if members agreed
        return None
    positive = panel.bundle.positive_index
    watched = int(verdict.probs.argmax()) if positive is None else positive
    # A handful of numbers on the path of every request: NumPy takes ten times as long.
    said = [float(probs[watched]) for probs in verdict.member_probs.values()]
    mean = sum(said) / len(said)
    return sqrt(sum((p - mean) ** 2 for p in said) / len(said))


def _entropy(probs: Floats) -> float:
    """In [0, 1]: divided by that of equal probabilities."""
    kept = [p for p in probs.tolist() if p > 0]
    return float(min(max(-sum(p * log(p) for p in kept) / log(len(probs)), 0.0), 1.0))


def _by_class(classes: Sequence[str], probs: NDArray[np.floating]) -> dict[str, float]:
    return dict(zip(classes, probs.tolist(), strict=True))
