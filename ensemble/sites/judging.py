"""What the others' calibrator and threshold do at a site they never saw, and at home.

At the site they are those of all held-back images. At home a threshold may not be judged on the
images that chose it: the held-back part is divided into five, and each fifth is judged by a
calibrator and a threshold of the other four. Both sides are thus of images that neither the
network nor its threshold has seen, and only one of them is of known sites.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.calibration.choose import divide
from ensemble.decision.fit import Decided, certifying_half, fit_decision
from ensemble.decision.points import OperatingPoint, PointConfig
from ensemble.evaluation.bootstrap import bootstrap
from ensemble.evaluation.pointwise import grouped_rate
from ensemble.evaluation.results import Estimates
from ensemble.evaluation.table import MetricTable
from ensemble.sites.results import Held, Side, difference, promised, verdict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
FOLDS = 5
RANKED, CALIBRATED = ("auroc",), ("nll", "brier", "ece")


@dataclass(frozen=True)
class Cases:
    """Images of one side.

    Attributes:
        probs: as the network gave them, (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
    """

    probs: NDArray[np.floating]
    labels: Ints
    groups: Ints


@dataclass(frozen=True)
class How:
    """What is asked for.

    Attributes:
        positive: class index that the point is about; None: no point.
        points: one by its name; none without a positive class.
        replicates: of the bootstrap.
        seed: of divisions and draws.
    """

    positive: int | None
    points: Mapping[str, PointConfig]
    replicates: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Judged:
    """Both sides, and what differs.

    Attributes:
        decided: what was fitted to all held-back images.
    """

    decided: Decided
    home: Side
    away: Side
    difference: Estimates
    held: Held | None


def judge(home: Cases, away: Cases, how: How) -> Judged:
    """Calibrate and choose the threshold at home, and look at both sides.

    Raises:
        StudyError: the held-back images are too few to choose on.
    """
    decided = _decide(home, how)
    calibrated = decided.calibrator.apply(away.probs)
    point = decided.operating_points[0] if decided.operating_points else None
    there = _side(away, calibrated, _outcomes(point, calibrated, how), how)
    here = _side(home, *_cross_fitted(home, how), how)
    differences = {
        name: difference(each, here.metrics[name]) for name, each in there.metrics.items()
    }
    held = None
    if point is not None and (asked := promised(point)) is not None:
        held = verdict(there.metrics[asked[0]], asked[1])
    return Judged(decided, here, there, differences, held)


def _decide(cases: Cases, how: How, rows: Bools | None = None) -> Decided:
    """Fit the calibrator and the point to cases, or to those of `rows`."""
    chosen = np.ones(len(cases.labels), np.bool_) if rows is None else rows
    labels, groups = cases.labels[chosen], cases.groups[chosen]
    n_classes = cases.probs.shape[1]
    half = certifying_half(
        labels, groups, positive=how.positive, n_classes=n_classes, seed=how.seed
    )
    return fit_decision(
        cases.probs[chosen],
        labels,
        groups,
        positive=how.positive,
        points=how.points,
        certifies=half,
        seed=how.seed,
    )


def _cross_fitted(cases: Cases, how: How) -> tuple[Floats, Ints]:
    """Calibrated probabilities and outcomes of cases, each fifth by the others."""
    kinds = cases.labels if how.positive is None else (cases.labels == how.positive).astype(int)
    fold_of = divide(kinds.astype(np.int64), cases.groups, folds=FOLDS, seed=how.seed)
    calibrated = np.empty(cases.probs.shape, np.float64)
    outcomes = np.zeros(len(cases.labels), np.int64)
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        decided = _decide(cases, how, ~inside)
        calibrated[inside] = decided.calibrator.apply(cases.probs[inside])
        point = decided.operating_points[0] if decided.operating_points else None
        outcomes[inside] = _outcomes(point, calibrated[inside], how)
    return calibrated, outcomes


def _outcomes(point: OperatingPoint | None, calibrated: Floats, how: How) -> Ints:
    """0 negative, 1 referred, 2 positive, (n_images,); zeros without a point."""
    if point is None or how.positive is None:
        return np.zeros(len(calibrated), np.int64)
    order = ("negative", "refer", "positive")
    return np.array([order.index(point.decide(float(p))) for p in calibrated[:, how.positive]])


def _side(cases: Cases, calibrated: Floats, outcomes: Ints, how: How) -> Side:
    """Ranking by the network's own probabilities, which no calibrator of a fold has touched."""
    labels, groups, positive = cases.labels, cases.groups, how.positive
    tables = {
        "ranked": MetricTable(cases.probs, labels, positive=positive, only=RANKED),
        "calibrated": MetricTable(calibrated, labels, positive=positive, only=CALIBRATED),
    }
    found = bootstrap(tables, groups, replicates=how.replicates, seed=how.seed, threads=1)
    metrics = found["ranked"] | found["calibrated"]
    n_positive = None if positive is None else int((labels == positive).sum())
    if positive is not None and how.points:
        is_positive = labels == positive
        for name, among, hit in (
            ("sensitivity", is_positive, outcomes > 0),
            ("specificity", ~is_positive, outcomes < 2),
        ):
            metrics[name] = grouped_rate(
                hit[among], groups[among], replicates=how.replicates, seed=how.seed
            )
    return Side(
        n=len(labels),
        n_groups=len(np.unique(groups)),
        n_positive=n_positive,
        prevalence=None if n_positive is None else n_positive / len(labels),
        metrics=metrics,
    )
