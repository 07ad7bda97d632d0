"""Calibration slope and intercept agree with logistic regression and refuse what has none."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression

from ensemble.evaluation.slope import Regression

Floats = NDArray[np.float64]


def logit(p: Floats) -> Floats:
    logits: Floats = np.log(p / (1 - p))
    return logits


def drawn(n: int, *, slope: float, intercept: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Probabilities whose outcomes follow slope * logit(p) + intercept."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, n)
    truth = 1 / (1 + np.exp(-slope * logit(p) - intercept))
    return p, rng.uniform(size=n) < truth


def test_the_slope_is_that_of_a_weighted_logistic_regression() -> None:
    p, outcome = drawn(200, slope=0.6, intercept=0.4)
    counts = np.random.default_rng(1).integers(0, 4, (200, 3)).astype(np.float64)
    found = Regression(p, outcome).slope(counts)
    for column in range(3):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        fit.fit(logit(p)[:, None], outcome, sample_weight=counts[:, column])
        assert found[column] == pytest.approx(float(fit.coef_[0, 0]), abs=1e-4)


def test_the_intercept_makes_the_expected_outcomes_as_many_as_the_real_ones() -> None:
    p, outcome = drawn(200, slope=1, intercept=-0.7)
    counts = np.random.default_rng(1).integers(0, 4, (200, 3)).astype(np.float64)
    found = Regression(p, outcome).intercept(counts)
    for column in range(3):
        weights = counts[:, column]

        def excess(alpha: float, weights: Floats = weights) -> float:
            return float(weights @ (1 / (1 + np.exp(-logit(p) - alpha)) - outcome))

        assert found[column] == pytest.approx(brentq(excess, -10, 10), abs=1e-8)


def test_a_known_distortion_is_found_in_many_outcomes() -> None:
    once = np.ones((50_000, 1))
    assert Regression(*drawn(50_000, slope=0.5, intercept=0)).slope(once)[0] == pytest.approx(
        0.5, abs=0.02
    )
    shifted = Regression(*drawn(50_000, slope=1, intercept=-0.7))
    assert shifted.intercept(once)[0] == pytest.approx(-0.7, abs=0.03)


@pytest.mark.parametrize("p", [[0.1, 0.2, 0.8, 0.9], [1e-9, 0.2, 0.8, 1.0], [0.4, 0.4, 0.4, 0.6]])
def test_separated_outcomes_have_no_slope_but_an_intercept(p: list[float]) -> None:
    regression = Regression(np.array(p), np.array([False, False, True, True]))
    assert np.isnan(regression.slope(np.ones((4, 2)))).all()
    assert np.isfinite(regression.intercept(np.ones((4, 2)))).all()


def test_only_the_replicate_that_is_separated_has_no_slope() -> None:
    p, outcome = np.array([0.1, 0.7, 0.5, 0.9]), np.array([False, False, True, True])
    counts = np.array([[1, 1, 1, 1], [1, 0, 1, 1]], np.float64).T
    slope = Regression(p, outcome).slope(counts)
    assert np.isfinite(slope[0])
    assert np.isnan(slope[1])


def test_one_probability_or_one_outcome_has_no_slope() -> None:
    same = Regression(np.full(4, 0.3), np.array([False, True, False, True]))
    assert np.isnan(same.slope(np.ones((4, 1)))[0])
    assert same.intercept(np.ones((4, 1)))[0] == pytest.approx(-float(logit(np.array([0.3]))[0]))
    all_positive = Regression(np.array([0.2, 0.5, 0.9]), np.ones(3, np.bool_))
    assert np.isnan(all_positive.slope(np.ones((3, 1)))[0])
    assert np.isnan(all_positive.intercept(np.ones((3, 1)))[0])


def test_certain_probabilities_that_are_wrong_still_give_both() -> None:
    p = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 0.5])
    outcome = np.array([True, False, True, True, False, False])
    regression = Regression(p, outcome)
    assert abs(regression.slope(np.ones((6, 1)))[0]) < 0.2
    assert np.isfinite(regression.intercept(np.ones((6, 1)))[0])
