"""Promises about unseen cases, held against a known truth, and the refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta

from ensemble.decision.certify import (
    Certificate,
    allowed_misses,
    certified_specificity,
    certified_threshold,
    conformal_threshold,
)
from ensemble.decision.intervals import clopper_pearson

DRAWS = 2000
POSITIVES, NEGATIVES = beta(4, 2), beta(2, 4)  # the true distributions of the scores
Floats = NDArray[np.float64]


def scores_of(n_positive: int, n_negative: int, *, draws: int = DRAWS) -> Floats:
    """Scores of as many resamples, positives first: (draws, n_positive + n_negative)."""
    rng = np.random.default_rng(7)
    positives = POSITIVES.rvs((draws, n_positive), random_state=rng)
    return np.hstack([positives, NEGATIVES.rvs((draws, n_negative), random_state=rng)])


def labels_of(n_positive: int, n_negative: int) -> NDArray[np.bool_]:
    return np.arange(n_positive + n_negative) < n_positive


def three_errors(chance: float) -> float:
    """Three standard errors of a share counted in all resamples."""
    return float(3 * np.sqrt(chance * (1 - chance) / DRAWS))


def sensitivity_certificate(score: Floats, n_positive: int) -> Certificate:
    is_positive = np.arange(len(score)) < n_positive
    return certified_threshold(score, is_positive, rate=0.95, confidence=0.95)


# 72 and 110 are where 0 and 1 misses just pass, so that the chance is nearly all used up.
@pytest.mark.parametrize("n", [72, 110, 300])
def test_a_certified_sensitivity_is_missed_no_more_often_than_promised(n: int) -> None:
    found = [sensitivity_certificate(row, n).threshold for row in scores_of(n, 400)]
    violated = float(np.mean(POSITIVES.sf(np.array(found, np.float64)) < 0.95))
    assert violated <= 0.025 + three_errors(0.025)  # two-sided 95%: half of 1 - c
    assert violated > 0.005  # a threshold of 0 would keep any promise


def test_a_certified_specificity_is_missed_no_more_often_than_promised() -> None:
    is_positive = labels_of(400, 110)
    thresholds = [
        certified_specificity(row, is_positive, rate=0.95, confidence=0.95).threshold
        for row in scores_of(400, 110)
    ]
    violated = float(np.mean(NEGATIVES.cdf(np.array(thresholds, np.float64)) < 0.95))
    assert 0.005 < violated <= 0.025 + three_errors(0.025)


def test_a_coarse_monotone_calibrator_fitted_on_the_same_cases_keeps_the_promise() -> None:
    n, violations = 72, []
    for row in scores_of(n, 30):
        steps = np.sort(row[n:])  # of a step function that the draw itself decides
        calibrated = np.searchsorted(steps, row, side="right") / 31
        threshold = sensitivity_certificate(calibrated, n).threshold
        assert threshold is not None
        reached = int(np.ceil(threshold * 31 - 1e-9))
        edge = steps[reached - 1] if reached else 0.0
        violations.append(POSITIVES.sf(edge) < 0.95)
    assert np.mean(violations) <= 0.025 + three_errors(0.025)


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (60, 0.05), (45, 0.1)])
def test_the_expected_false_negative_rate_is_as_promised(n: int, rate: float) -> None:
    is_positive = labels_of(n, 200)
    thresholds = [
        conformal_threshold(row, is_positive, rate=rate).threshold for row in scores_of(n, 200)
    ]
    missed = POSITIVES.cdf(np.array(thresholds, np.float64))
    error = missed.std() / np.sqrt(DRAWS)
    assert missed.mean() <= rate + 3 * error
    assert missed.mean() >= rate / 2


def test_too_few_positives_are_refused_in_words() -> None:
    found = sensitivity_certificate(np.linspace(0.1, 0.9, 100), 41)
    assert found.threshold is None
    assert (found.n_positive, found.n_negative) == (41, 59)
    assert found.reason == "not certifiable with n₊ = 41: 72 positives without a miss are needed"


@pytest.mark.parametrize("n", [71, 72])
def test_seventy_two_positives_are_enough_and_seventy_one_are_not(n: int) -> None:
    assert (sensitivity_certificate(np.linspace(0.1, 0.9, 100), n).threshold is None) == (n == 71)


def test_too_few_negatives_are_refused_in_words() -> None:
    found = certified_specificity(
        np.linspace(0.1, 0.9, 100), labels_of(59, 41), rate=0.95, confidence=0.95
    )
    assert found.threshold is None
    assert found.reason == (
        "not certifiable with n₋ = 41: 72 negatives without a false alarm are needed"
    )


def test_too_few_positives_for_conformal_risk_control_are_refused_in_words() -> None:
    score = np.linspace(0.1, 0.9, 40)
    found = conformal_threshold(score, labels_of(10, 30), rate=0.05)
    assert found.threshold is None
    assert found.reason == "not certifiable with n₊ = 10: 19 positives are needed"
    assert conformal_threshold(score, labels_of(18, 22), rate=0.05).threshold is None
    assert conformal_threshold(score, labels_of(19, 21), rate=0.05).threshold is not None


def test_whole_positives_are_counted_whatever_the_rounding() -> None:
    score = np.arange(1, 101) / 101
    found = conformal_threshold(score, labels_of(99, 1), rate=0.29)  # 0.29 * 100 is below 29
    assert found.misses == 28


def test_perfection_is_never_certified() -> None:
    score, is_positive = np.linspace(0.1, 0.9, 900), labels_of(450, 450)
    whole = certified_threshold(score, is_positive, rate=1, confidence=0.95)
    assert whole.reason == "not certifiable: no number of positives proves a rate of 1"
    none = conformal_threshold(score, is_positive, rate=0)
    assert none.reason == "not certifiable: no number of positives proves a rate of 0"


def test_the_threshold_lies_midway_below_the_last_positive_that_passes() -> None:
    positives = 0.5 + np.arange(110) / 1000  # one miss is allowed: 0.501 must be caught
    found = sensitivity_certificate(np.append(positives, [0.5006, 0.3]), 110)
    assert found.threshold == pytest.approx((0.501 + 0.5006) / 2)
    assert found.misses == 1


def test_below_all_scores_is_halfway_to_nothing() -> None:
    found = sensitivity_certificate(np.append(np.full(72, 0.8), [0.9]), 72)
    assert found.threshold == pytest.approx(0.4)


def test_between_neighbouring_floats_no_positive_is_lost() -> None:
    low = 0.5
    high = float(np.nextafter(low, 1))
    found = sensitivity_certificate(np.append(np.full(72, high), [low]), 72)
    assert found.threshold == high
    mirrored = certified_specificity(
        np.append(np.full(72, low), [high]), ~labels_of(72, 1), rate=0.95, confidence=0.95
    )
    assert mirrored.threshold == high


def test_a_specificity_lies_midway_above_the_last_negative_that_passes() -> None:
    negatives = 0.5 - np.arange(110) / 1000
    found = certified_specificity(
        np.append(negatives, [0.4994, 0.7]), ~labels_of(110, 2), rate=0.95, confidence=0.95
    )
    assert found.threshold == pytest.approx((0.499 + 0.4994) / 2)
    assert found.misses == 1


def test_negatives_with_a_score_of_one_forbid_a_specificity() -> None:
    score = np.append(np.full(72, 1.0), [0.3])
    found = certified_specificity(score, ~labels_of(72, 1), rate=0.95, confidence=0.95)
    assert found.threshold is None
    assert found.reason == "not certifiable: 72 negatives have a score of 1"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.floats(0.3, 0.99), st.floats(0.6, 0.99))
def test_bisection_stops_where_the_sequence_first_fails(
    n: int, rate: float, confidence: float
) -> None:
    misses = 0
    while misses < n and clopper_pearson(n - misses, n, confidence=confidence)[0] >= rate:
        misses += 1
    assert allowed_misses(n, rate, confidence) == misses - 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=80, max_size=120), st.integers(40, 80))
def test_the_lower_bound_reaches_the_rate_exactly_where_it_is_certified(
    levels: list[int], n_positive: int
) -> None:
    score = np.array(levels) / 31
    is_positive = labels_of(n_positive, len(levels) - n_positive)
    found = certified_threshold(score, is_positive, rate=0.9, confidence=0.9)
    assert (found.threshold is None) == (
        clopper_pearson(n_positive, n_positive, confidence=0.9)[0] < 0.9
    )
    if found.threshold is not None:
        hits = int((score[is_positive] >= found.threshold).sum())
        assert n_positive - hits == found.misses
        assert clopper_pearson(hits, n_positive, confidence=0.9)[0] >= 0.9
        higher = np.min(score, initial=1, where=is_positive & (score > found.threshold + 1 / 31))
        missed = int((score[is_positive] < higher).sum())
        if missed < n_positive:  # the next test of the sequence fails
            assert clopper_pearson(n_positive - missed, n_positive, confidence=0.9)[0] < 0.9
