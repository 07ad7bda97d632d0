"""The scan agrees with trying every threshold."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from search.config import PolicyConfig
from search.training.thresholds import OperatingPoint, scan_thresholds

Floats = NDArray[np.float64]
Scored = tuple[Floats, NDArray[np.bool_]]

LABELS = np.array([0, 0, 1, 1])
PROBS = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])


@st.composite
def scored(draw: st.DrawFn) -> Scored:
    """Scores of either class, often tied, at 0 or at 1."""
    n = draw(st.integers(2, 25))
    coarse = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    score = draw(hnp.arrays(np.float64, n, elements=st.one_of(coarse, st.floats(0, 1))))
    is_positive = draw(hnp.arrays(np.bool_, n))
    is_positive[:2] = True, False
    return score, is_positive


POLICIES = st.one_of(
    st.integers(0, 100).map(lambda percent: PolicyConfig(sensitivity=percent / 100)),
    st.sampled_from([0.1, 0.3, 0.5, 1, 3, 10, 1e12]).map(lambda r: PolicyConfig(cost_ratio=r)),
)


def reach(sensitivity: float) -> PolicyConfig:
    return PolicyConfig(sensitivity=sensitivity)


def scan(positives: list[float], negatives: list[float], policy: PolicyConfig) -> OperatingPoint:
    truth = np.arange(len(positives) + len(negatives)) < len(positives)
    return scan_thresholds(np.array([*positives, *negatives]), truth, policy)


def test_the_threshold_lies_in_the_middle_of_the_gap_below_the_last_positive() -> None:
    point = scan([0.9, 0.8, 0.6], [0.7, 0.2, 0.1], reach(0.95))
    assert point.threshold == pytest.approx(0.4)
    assert (point.sensitivity, point.specificity) == pytest.approx((1.0, 2 / 3))
    assert (point.n_positive, point.n_negative) == (3, 3)
    assert math.isnan(point.cost)


def test_equal_scores_are_never_separated() -> None:
    point = scan([0.9, 0.5], [0.5, 0.5, 0.1], reach(1.0))
    assert (point.threshold, point.specificity) == pytest.approx((0.3, 1 / 3))


def test_positives_that_cost_no_specificity_are_caught_beyond_the_target() -> None:
    point = scan([0.9, 0.8, 0.7], [0.1], reach(0.5))
    assert (point.threshold, point.sensitivity) == pytest.approx((0.4, 1.0))


def test_a_target_is_not_missed_by_the_rounding_of_a_product() -> None:
    assert 0.07 * 100 > 7
    positives = [0.9] * 7 + [0.3] * 93
    assert scan(positives, [0.5], reach(0.07)).sensitivity == 0.07


def test_the_least_cost_weighs_a_miss_by_its_ratio() -> None:
    positives, negatives = [0.9, 0.3], [0.6, 0.5, 0.1]
    dear = scan(positives, negatives, PolicyConfig(cost_ratio=3))
    cheap = scan(positives, negatives, PolicyConfig(cost_ratio=1))
    assert (dear.threshold, dear.cost) == pytest.approx((0.2, 2 / 5))
    assert (cheap.threshold, cheap.cost) == pytest.approx((0.75, 1 / 5))


def test_equal_costs_go_to_the_higher_sensitivity() -> None:
    point = scan([0.9, 0.3], [0.6, 0.5, 0.1], PolicyConfig(cost_ratio=2))
    assert (point.sensitivity, point.cost) == pytest.approx((1.0, 2 / 5))


def test_costs_that_differ_by_rounding_alone_are_equal() -> None:
    assert 0.29 * 100 < 29
    positives = [0.9] * 5 + [0.3] * 100
    point = scan(positives, [0.5] * 29 + [0.1] * 100, PolicyConfig(cost_ratio=0.29))
    assert point.sensitivity == 1.0


def test_a_dear_miss_does_not_hide_a_false_alarm() -> None:
    point = scan([0.8, 0.1], [0.1, 0.9, 0.05], PolicyConfig(cost_ratio=1e12))
    assert (point.sensitivity, point.specificity) == pytest.approx((1.0, 1 / 3))


def test_calling_nothing_positive_is_a_threshold_between_the_highest_score_and_1() -> None:
    point = scan([0.1], [0.6, 0.2], PolicyConfig(cost_ratio=0.5))
    assert (point.threshold, point.sensitivity, point.specificity) == pytest.approx((0.8, 0, 1))


def test_a_score_of_1_is_always_called_positive() -> None:
    point = scan([0.1], [1.0, 0.2], PolicyConfig(cost_ratio=0.5))
    assert (point.threshold, point.specificity) == pytest.approx((0.6, 0.5))


def test_a_positive_scored_0_is_reached_by_a_threshold_of_0_only() -> None:
    assert scan([0.9, 0.0], [0.5], reach(1.0)).threshold == 0
    assert scan([0.9, 0.0], [0.5], reach(0.5)).threshold == pytest.approx(0.7)


def test_below_the_lowest_score_the_threshold_is_half_of_it() -> None:
    assert scan([0.9, 0.4], [0.5], reach(1.0)).threshold == pytest.approx(0.2)


def test_neighbouring_floats_are_still_told_apart() -> None:
    for low in np.nextafter(0.5, [0, 1]), np.nextafter(0.3, [0, 1]), np.array([5e-324, 0.0]):
        score = np.array([max(low), min(low)])
        point = scan_thresholds(score, np.array([True, False]), reach(1.0))
        assert point.specificity == 1
        assert (score >= point.threshold).tolist() == [True, False]


def test_a_score_may_exceed_1_by_rounding() -> None:
    point = scan([1.0000003], [1.0000001, 0.5], reach(1.0))
    assert (point.threshold, point.specificity) == pytest.approx((0.75, 0.5))


@given(scored(), POLICIES)
def test_the_scan_finds_what_trying_every_threshold_finds(
    case: Scored, policy: PolicyConfig
) -> None:
    score, is_positive = case
    n_positive, n_negative = is_positive.sum(), (~is_positive).sum()
    ratio = Fraction(str(policy.cost_ratio)) if policy.cost_ratio else Fraction(0)
    target = Fraction(str(policy.sensitivity)) if policy.sensitivity else Fraction(0)
    best: tuple[tuple[Fraction | float, ...], float] | None = None
    for threshold in {0.0, 1.0, *score, *np.nextafter(score, 1)}:
        called = score >= threshold
        hits, alarms = int((called & is_positive).sum()), int((called & ~is_positive).sum())
        if policy.cost_ratio is not None:
            key: tuple[Fraction | float, ...] = (ratio * int(n_positive - hits) + alarms, -hits)
        elif hits < target * int(n_positive):
            continue
        else:
            key = (alarms, -hits)
        if best is None or key < best[0]:
            best = key, threshold
    assert best is not None
    point = scan_thresholds(score, is_positive, policy)
    called = score >= point.threshold
    assert called.tolist() == (score >= best[1]).tolist()
    assert 0 <= point.threshold <= 1
    assert point.sensitivity == (called & is_positive).sum() / n_positive
    assert point.specificity == (~called & ~is_positive).sum() / n_negative
    if policy.cost_ratio is not None:
        assert point.cost == pytest.approx(float(best[0][0]) / len(score), rel=1e-12)


@pytest.mark.parametrize(
    ("score", "is_positive", "message"),
    [
        (np.empty(0), np.empty(0, np.bool_), "n_images >= 1"),
        (PROBS, LABELS == 1, r"the shape is \(4, 2\)"),
        (PROBS[:, 1], LABELS[:3] == 1, r"must be bool \(4,\), it is bool \(3,\)"),
        (PROBS[:, 1], LABELS, r"must be bool \(4,\), it is int64"),
        (PROBS[:, 1] * 2, LABELS == 1, r"in \[0, 1\], it is 0.2 to 1.4"),
        (PROBS[:, 1] * np.nan, LABELS == 1, r"in \[0, 1\], it is nan"),
    ],
)
def test_what_are_no_scores_is_refused(
    score: Floats, is_positive: NDArray[np.bool_], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scan_thresholds(score, is_positive, reach(0.95))
