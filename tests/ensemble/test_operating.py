"""Operating points say what they were chosen for and that nothing is certified yet."""

import numpy as np
import pytest
from scipy.stats import beta

from ensemble.operating import choose_operating_point, clopper_pearson
from search.config import PolicyConfig

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.2])
POSITIVE = np.array([True, True, False, True, False, False])


def test_the_threshold_of_a_sensitivity() -> None:
    point = choose_operating_point("high", PolicyConfig(sensitivity=0.95), SCORE, POSITIVE)
    assert point.threshold == pytest.approx(0.5)
    assert (point.sensitivity, point.specificity) == pytest.approx((1, 2 / 3))
    assert (point.n_positive, point.n_negative) == (3, 3)
    assert not point.certified
    assert "same calibration images" in point.reason
    assert "0.95" in point.target


def test_the_threshold_of_a_cost() -> None:
    point = choose_operating_point("cheap", PolicyConfig(cost_ratio=0.1), SCORE, POSITIVE)
    assert point.threshold == pytest.approx(0.75)
    assert "0.1 false alarms" in point.target


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (72, 72), (57, 60)])
def test_the_interval_is_the_exact_one(hits: int, n: int) -> None:
    low = beta.ppf(0.025, hits, n - hits + 1) if hits else 0
    high = beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1
    assert clopper_pearson(hits, n) == pytest.approx((low, high))


def test_seventy_two_positives_without_a_miss_prove_95_percent() -> None:
    assert clopper_pearson(72, 72)[0] > 0.95 > clopper_pearson(71, 71)[0]
