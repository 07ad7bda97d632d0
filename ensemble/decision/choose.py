"""Operating points: thresholds chosen on held-back cases, and what is known about them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble.decision.certify import (
    Certificate,
    certified_specificity,
    certified_threshold,
    conformal_threshold,
    just_above,
)
from ensemble.decision.intervals import clopper_pearson
from ensemble.decision.points import Kind, OperatingPoint, PointConfig, ReferConfig
from ensemble.decision.refer import choose_band, meets, refer_front
from search.config import PolicyConfig
from search.errors import StudyError
from search.training.thresholds import SUM_TOLERANCE, scan_thresholds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NO_RATE = "asks for no rate that could be certified; measured on the cases that chose it"


class _Cases(NamedTuple):
    score: Floats
    is_positive: Bools
    seed: int


class _Choice(NamedTuple):
    threshold: float
    certified: bool
    reason: str
    refer_from: float | None = None


def choose_points(
    points: Mapping[str, PointConfig],
    score: NDArray[np.floating],
    is_positive: Bools,
    groups: NDArray[Any],
    *,
    seed: int = 0,
) -> list[OperatingPoint]:
    """Choose every operating point on the calibration slice, in the order they are named.

    Certification takes independent cases, so of each group of linked images (a lesion's, or a
    patient's) one image is kept: see `one_per_group`. Everything is counted after that, and what
    is promised is about one image of each unseen group.

    Args:
        points: by name.
        score: calibrated probability of the positive class, (n_images,), in [0, 1].
        is_positive: (n_images,).
        groups: (n_images,); equal where images are linked.
        seed: of the images that are kept, and of the search for refer bands.

    Raises:
        StudyError: no positive or no negative case.
        ValueError: shapes that differ, or scores out of range.
    """
    kept = one_per_group(groups, seed=seed)
    checked = _checked_score(score, is_positive, groups)
    cases = _Cases(checked[kept], is_positive[kept], seed)
    _check_both(cases)
    return [_point(name, config, cases) for name, config in points.items()]


def choose_point(
    name: str,
    config: PointConfig,
    score: NDArray[np.floating],
    is_positive: Bools,
    groups: NDArray[Any],
    *,
    seed: int = 0,
) -> OperatingPoint:
    """Choose one operating point; everything else is as in `choose_points`."""
    return choose_points({name: config}, score, is_positive, groups, seed=seed)[0]


def one_per_group(groups: NDArray[Any], *, seed: int = 0) -> Ints:
    """Row numbers, ascending, of one image a group, drawn blindly: (n_groups,).

    The draw sees neither scores nor labels: to keep, say, the highest score of each lesion would
    promise something about lesions of which the same choice is made when the bundle is used.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    rows: Ints = np.sort(order[first]).astype(np.int64)
    return rows


def describe(config: PointConfig) -> str:
    """What a point is asked for, in words."""
    number = _number(config)
    words: dict[Kind, str] = {
        "sensitivity": f"sensitivity at least {number:g}, then most specificity",
        "false_negative_rate": f"expected false-negative rate at most {number:g}",
        "specificity": f"specificity at least {number:g}, then most sensitivity",
        "cost_ratio": f"least cost, a miss costing {number:g} false alarms",
        "youden": "most sensitivity + specificity",
        "threshold": f"a threshold of {number:g}, whatever it does",
    }
    if config.refer is not None:
        return (
            f"at most {config.refer.share:.4g} of the images referred and sensitivity at least "
            f"{number:g}, then most specificity"
        )
    return words[config.kind]


def _point(name: str, config: PointConfig, cases: _Cases) -> OperatingPoint:
    choice = _choose(config, cases)
    positives, negatives = cases.score[cases.is_positive], cases.score[~cases.is_positive]
    lower = choice.threshold if choice.refer_from is None else choice.refer_from
    hits = int(np.count_nonzero(positives >= lower))
    rejected = int(np.count_nonzero(negatives < choice.threshold))
    between = (cases.score >= lower) & (cases.score < choice.threshold)
    return OperatingPoint(
        name=name,
        kind=config.kind,
        threshold=choice.threshold,
        refer_from=choice.refer_from,
        target=describe(config),
        aim=None if config.kind in ("youden", "threshold") else _number(config),
        confidence=config.confidence,
        sensitivity=hits / len(positives),
        specificity=rejected / len(negatives),
        referred=float(between.mean()),
        sensitivity_interval=clopper_pearson(hits, len(positives), confidence=config.confidence),
        specificity_interval=clopper_pearson(
            rejected, len(negatives), confidence=config.confidence
        ),
        n_positive=len(positives),
        n_negative=len(negatives),
        certified=choice.certified,
        reason=choice.reason,
    )


def _choose(config: PointConfig, cases: _Cases) -> _Choice:
    if config.refer is not None:
        return _refer(config.refer, cases)
    if config.threshold is not None:
        return _Choice(config.threshold, False, "fixed by the config; its rates are only measured")
    if config.kind in ("cost_ratio", "youden"):
        # With misses this dear the cost is n_negative * (2 - sensitivity - specificity).
        even = np.count_nonzero(~cases.is_positive) / np.count_nonzero(cases.is_positive)
        policy = PolicyConfig(cost_ratio=even if config.cost_ratio is None else config.cost_ratio)
        return _Choice(_scan(cases, policy), False, NO_RATE)
    certificate = _certificate(config, cases)
    if certificate.threshold is None:
        return _Choice(_best_here(config, cases), False, certificate.reason)
    return _Choice(certificate.threshold, True, certificate.reason)


def _refer(config: ReferConfig, cases: _Cases) -> _Choice:
    front = refer_front(cases.score, cases.is_positive, seed=cases.seed, asked=[config])
    band = choose_band(front, config)
    reason = "two thresholds, measured on the cases that chose them"
    if not meets(band, config):
        reason = f"no band does what is asked, this one is nearest; {reason}"
    return _Choice(band.upper, False, reason, band.lower)


def _certificate(config: PointConfig, cases: _Cases) -> Certificate:
    if config.false_negative_rate is not None:
        return conformal_threshold(cases.score, cases.is_positive, rate=config.false_negative_rate)
    certified = certified_threshold if config.specificity is None else certified_specificity
    return certified(
        cases.score, cases.is_positive, rate=_number(config), confidence=config.confidence
    )


def _best_here(config: PointConfig, cases: _Cases) -> float:
    """The best threshold for a rate on these very cases, with no promise."""
    rate = _number(config)
    if config.specificity is None:
        sensitivity = rate if config.false_negative_rate is None else 1 - rate
        return _scan(cases, PolicyConfig(sensitivity=sensitivity))
    negatives = np.sort(cases.score[~cases.is_positive])[::-1]
    # Whole images are compared, as in scan_thresholds.
    allowed = min(int((1 - rate) * len(negatives) + 1e-9), len(negatives) - 1)
    level = float(negatives[allowed])
    return just_above(cases.score, level) if level < 1 else 1.0


def _scan(cases: _Cases, policy: PolicyConfig) -> float:
    return scan_thresholds(cases.score, cases.is_positive, policy).threshold


def _number(config: PointConfig) -> float:
    """The rate, ratio or threshold that is asked for; a refer band's is its sensitivity."""
    if config.refer is not None:
        return config.refer.sensitivity
    return float(getattr(config, config.kind))


def _checked_score(score: NDArray[np.floating], is_positive: Bools, groups: NDArray[Any]) -> Floats:
    s = np.asarray(score, np.float64)
    if s.ndim != 1 or not s.shape == is_positive.shape == groups.shape:
        raise ValueError(
            "score, is_positive and groups must be (n_images,), the shapes are "
            f"{s.shape}, {is_positive.shape} and {groups.shape}"
        )
    # NaN fails this, too; a mean of float32 probabilities may come out a little above 1.
    if not ((s >= 0) & (s <= 1 + SUM_TOLERANCE)).all():
        raise ValueError(f"score must be in [0, 1], it is {s.min():g} to {s.max():g}")
    return np.minimum(s, 1)


def _check_both(cases: _Cases) -> None:
    n, n_positive = len(cases.score), int(np.count_nonzero(cases.is_positive))
    for kind, count in (("positive", n_positive), ("negative", n - n_positive)):
        if count == 0:
            raise StudyError(
                f"no {kind} among the {n} cases of the calibration slice (one image a group): no "
                "operating point can be chosen; raise splits.calibration and search again"
            )
