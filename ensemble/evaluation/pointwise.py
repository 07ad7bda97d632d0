"""What a bundle's operating points do to labelled images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ensemble.decision.intervals import clopper_pearson
from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.bootstrap import estimate, replicate
from ensemble.evaluation.results import Estimate, Estimates, PointResult
from ensemble.paired import clustered_error

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
OUTCOMES = ("negative", "refer", "positive")


def apply_point(
    point: OperatingPoint,
    score: Floats,
    is_positive: Bools,
    groups: Ints,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> PointResult:
    """Decide every image, and count.

    Args:
        score: calibrated probability of the positive class, (n_images,).
        is_positive: (n_images,).
        groups: linked images share one, (n_images,).
    """
    outcome = _outcomes(point, score)
    matrix = np.zeros((2, 3), np.int64)
    np.add.at(matrix, (is_positive.astype(np.int64), outcome), 1)
    found = _rates(
        {
            "sensitivity": (is_positive, outcome > 0),
            "specificity": (~is_positive, outcome < 2),
            "ppv": (outcome == 2, is_positive),
            "npv": (outcome == 0, ~is_positive),
        },
        groups,
        replicates=replicates,
        seed=seed,
    )
    return PointResult(
        name=point.name,
        target=point.target,
        threshold=point.threshold,
        refer_from=point.refer_from,
        certified=point.certified,
        reason=point.reason,
        n_positive=int(is_positive.sum()),
        n_negative=int((~is_positive).sum()),
        referred=float((outcome == 1).mean()),
        confusion=matrix.tolist(),
        **found,
    )


def rates_at(
    point: OperatingPoint,
    score: Floats,
    is_positive: Bools,
    groups: Ints,
    *,
    replicates: int = 2000,
) -> Estimates:
    """Sensitivity and specificity of a point, as in `apply_point`; the same arguments."""
    outcome = _outcomes(point, score)
    among = {
        "sensitivity": (is_positive, outcome > 0),
        "specificity": (~is_positive, outcome < 2),
    }
    return _rates(among, groups, replicates=replicates, seed=0)


def _outcomes(point: OperatingPoint, score: Floats) -> Ints:
    """Indices into OUTCOMES, (n_images,)."""
    return np.array([OUTCOMES.index(point.decide(float(s))) for s in score], np.int64)


def _rates(
    among: Mapping[str, tuple[Bools, Bools]], groups: Ints, *, replicates: int, seed: int
) -> Estimates:
    """Shares by name: of which images, and which of all images count."""
    return {
        name: grouped_rate(hit[rows], groups[rows], replicates=replicates, seed=seed)
        for name, (rows, hit) in among.items()
    }


def grouped_rate(hit: Bools, groups: Ints, *, replicates: int = 2000, seed: int = 0) -> Estimate:
    """A share of images, with a 95% interval that knows of linked images.

    Clopper-Pearson's interval takes images as independent. Where some are linked, it is that of
    as many independent ones as would be as sure (n divided by the design effect; the number of
    groups where all images agree), widened to a bootstrap of the groups.

    Source: Korn & Graubard, Survey Methodology 24 (1998).
    """
    n = len(hit)
    if n == 0:
        return Estimate(value=None)
    rate, values = float(hit.mean()), hit.astype(np.float64)
    n_groups = len(np.unique(groups))
    if n_groups == n:
        low, high = clopper_pearson(int(hit.sum()), n)
        return Estimate(value=rate, low=low, high=high)
    worth: float = n_groups
    if 0 < rate < 1 and n_groups > 1:
        spread = clustered_error(values, groups) ** 2
        worth = min(rate * (1 - rate) / spread, float(n)) if spread > 0 else n_groups
    low, high = clopper_pearson(rate * worth, worth)
    wide = grouped_mean(values, groups, replicates=replicates, seed=seed)
    low = min(low, rate if wide.low is None else wide.low)
    high = max(high, rate if wide.high is None else wide.high)
    return Estimate(value=rate, low=low, high=high)


def grouped_mean(
    values: Floats, groups: Ints, *, replicates: int = 2000, seed: int = 0
) -> Estimate:
    """A mean over images with the grouped bootstrap's 95% interval."""

    def mean(counts: Floats) -> Floats:
        found: Floats = (counts @ values / counts.sum(axis=1))[None]
        return found

    draws = replicate(mean, groups, replicates=replicates, seed=seed)[0]
    return estimate(float(values.mean()), draws)
