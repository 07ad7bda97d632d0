"""The exact scan of all thresholds for the operating point that a policy asks for."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config import PolicyConfig

Scores = NDArray[np.floating]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SUM_TOLERANCE = 1e-3  # by which a row of probabilities may miss 1


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold (positive where score >= threshold), and what it does to the data it is from.

    All in [0, 1], but for the cost: per image, in false alarms, NaN without a cost ratio.
    """

    threshold: float
    sensitivity: float
    specificity: float
    cost: float
    n_positive: int
    n_negative: int


def scan_thresholds(score: Scores, is_positive: Bools, policy: PolicyConfig) -> OperatingPoint:
    """Find the best of all thresholds exactly; O(n log n), equal scores are never separated.

    `policy.sensitivity`: the most specificity with at least that sensitivity; ties go to the
    higher sensitivity. `policy.cost_ratio` r: the least (r * misses + false alarms) / n_images;
    ties go to the higher sensitivity.

    The threshold lies midway between the lowest score called positive and the next one below
    (below all: 0; above all: 1). Decisions on these images are the same for the whole gap, and
    from its middle the rounding of another engine flips none of them. It is exactly 0 only where
    a score of 0 must be called positive; a score of 1 is never called negative.

    Args:
        score: probability of the positive class, (n_images,), in [0, 1].
        is_positive: (n_images,).
        policy: what to reach.

    Returns:
        The operating point; its numbers are NaN where positives or negatives are absent.

    Raises:
        ValueError: scores out of range, shapes that differ, or no image at all.
    """
    levels, tp, fp = ranking(_checked_score(score, is_positive), is_positive)
    n_positive, n_negative = int(tp[-1]), int(fp[-1])
    if n_positive == 0 or n_negative == 0:
        return OperatingPoint(math.nan, math.nan, math.nan, math.nan, n_positive, n_negative)
    if levels[0] < 1:  # an empty level at 1: the threshold above all scores
        levels, tp, fp = np.append(1.0, levels), np.append(0, tp), np.append(0, fp)
    ratio = math.nan if policy.cost_ratio is None else policy.cost_ratio
    costs: Floats = np.float64(ratio) * (n_positive - tp) + fp
    if policy.sensitivity is None:
        best = _cheapest(costs, tp)
    else:
        # Whole images are compared: 0.07 * 100 is 7.000000000000001 but asks for 7, not 8.
        # False alarms only grow on the way down: the first level that reaches the target has the
        # fewest, and the last one with as few catches the positives that cost nothing more.
        first = int(np.argmax(tp >= math.ceil(policy.sensitivity * n_positive - 1e-9)))
        best = int(np.flatnonzero(fp == fp[first])[-1])
    return OperatingPoint(
        threshold=_middle(levels, best),
        sensitivity=float(tp[best] / n_positive),
        specificity=float((n_negative - fp[best]) / n_negative),
        cost=float(costs[best] / (n_positive + n_negative)),
        n_positive=n_positive,
        n_negative=n_negative,
    )


def _cheapest(costs: Floats, tp: Ints) -> int:
    # Costs that differ by no more than the rounding of a product and a sum are equal.
    tied = np.flatnonzero(costs <= costs.min() * (1 + 4 * np.finfo(np.float64).eps))
    return int(tied[np.argmax(tp[tied])])


def _middle(levels: Floats, index: int) -> float:
    level = float(levels[index])
    below = float(levels[index + 1]) if index + 1 < len(levels) else 0.0
    middle = (level + below) / 2
    # Between two neighbouring floats the middle rounds to one of them, maybe the wrong one.
    return middle if middle > below else level


def ranking(score: Floats, is_positive: Bools) -> tuple[Floats, Ints, Ints]:
    """Distinct scores downwards, and the positives and negatives that score at least as much."""
    order = np.argsort(score)[::-1]
    ranked = score[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of ties
    tp = np.cumsum(is_positive[order], dtype=np.int64)[last]
    return ranked[last], tp, last + 1 - tp


def _checked_score(score: Scores, is_positive: Bools) -> Floats:
    s = np.asarray(score, np.float64)
    if s.ndim != 1 or len(s) == 0:
        raise ValueError(f"score must be (n_images >= 1,), the shape is {s.shape}")
    kind = f"{is_positive.dtype} {is_positive.shape}"
    if kind != f"bool {s.shape}":
        raise ValueError(f"is_positive must be bool {s.shape}, it is {kind}")
    # NaN fails this, too; a mean of float32 probabilities may come out a little above 1.
    if not ((s >= 0) & (s <= 1 + SUM_TOLERANCE)).all():
        raise ValueError(f"score must be in [0, 1], it is {s.min():g} to {s.max():g}")
    return np.minimum(s, 1)
