"""Who does how well on the same images: the ensemble, the best single candidate, every recipe."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.bootstrap import bootstrap, paired_differences
from ensemble.evaluation.pointwise import apply_point
from ensemble.evaluation.results import Difference, Estimates, LeaderboardRow
from ensemble.evaluation.table import MetricTable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Contender:
    """Somebody's probabilities of the test images.

    Attributes:
        probs: (n_images, n_classes).
        point: chosen for these probabilities on the held-back cases; None without one.
    """

    who: str
    what: str
    epochs: str
    probs: Floats
    point: OperatingPoint | None = None


def make_leaderboard(
    contenders: Sequence[Contender],
    labels: Ints,
    groups: Ints,
    *,
    positive: int | None,
    replicates: int = 2000,
) -> tuple[list[LeaderboardRow], list[Difference]]:
    """Everyone's metrics, and the first one's difference from each of the others.

    `sensitivity_at_point` and `specificity_at_point` are at each one's own first operating point.

    Args:
        contenders: the ensemble first.
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
    """
    tables = {c.who: MetricTable(c.probs, labels, positive=positive) for c in contenders}
    rows = []
    for contender in contenders:
        found = bootstrap(tables[contender.who], groups, replicates=replicates)
        found |= _at_point(contender, labels == positive, groups, positive, replicates)
        rows.append(
            LeaderboardRow(
                who=contender.who, what=contender.what, metrics=found, epochs=contender.epochs
            )
        )
    first, *others = tables
    against = {who: tables[who] for who in others}
    return rows, paired_differences(tables[first], against, groups, replicates=replicates)


def _at_point(
    contender: Contender,
    is_positive: NDArray[np.bool_],
    groups: Ints,
    positive: int | None,
    replicates: int,
) -> Estimates:
    if contender.point is None or positive is None:
        return {}
    score = contender.probs[:, positive]
    found = apply_point(contender.point, score, is_positive, groups, replicates=replicates)
    return {
        "sensitivity_at_point": found.sensitivity,
        "specificity_at_point": found.specificity,
    }
