"""Calibration slope and intercept: the outcome regressed on the logit of its probability.

A slope of 1 and an intercept of 0 are ideal. A slope below 1 means probabilities too extreme;
an intercept below 0, on average too high. Slope: fitted together with a free intercept.
Intercept: fitted with the slope held at 1 ("calibration in the large").

Source: Cox, "Two further applications of a model for binary regression", Biometrika 1958;
Van Calster et al., "Calibration: the Achilles heel of predictive analytics", BMC Medicine 2019.
"""

import math

import numpy as np
from numpy.typing import NDArray

from search.training.metrics import NLL_FLOOR

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STEPS = 40
CLOSE = 1e-7  # Newton's error is squared in each step: after one this small it is nil
LEAST_ERROR = 0.99  # sum of |outcome - p|: with one pair out of order, it is at least 1
LARGEST_SLOPE = 100.0  # beyond it the outcomes are as good as separated
CAUTION = np.array([3.0, 1.0])  # most that intercept and slope move in one step


class Regression:
    """One set of probabilities and outcomes, weighted anew in each replicate.

    Both fits start from those of the unweighted images: three or four Newton steps are enough.
    """

    def __init__(self, confidence: Floats, outcome: Bools) -> None:
        p = np.clip(confidence, NLL_FLOOR, 1 - NLL_FLOOR)
        x = np.log(p / (1 - p))
        self._odds = (1 - p) / p
        self._design = np.stack([np.ones_like(x), x, outcome])
        self._squares = np.stack([np.ones_like(x), x, x * x])
        self._targets: Floats = self._design[:2] * outcome
        once = np.ones((len(x), 1))
        self._start = self._fit(once, np.zeros((2, 1)))
        self._large = self._fit_intercept(once, np.zeros(1))

    def slope(self, counts: Floats) -> Floats:
        """(n_replicates,); NaN where the outcomes are separated or all the same."""
        if np.isnan(self._start).any():  # what is separated stays so with fewer images
            return np.full(counts.shape[1], math.nan)
        slope: Floats = self._fit(counts, np.repeat(self._start, counts.shape[1], axis=1))[1]
        return slope

    def intercept(self, counts: Floats) -> Floats:
        """(n_replicates,); NaN where the outcomes are all the same."""
        if np.isnan(self._large).any():
            return np.full(counts.shape[1], math.nan)
        return self._fit_intercept(counts, np.repeat(self._large, counts.shape[1]))

    def _fit(self, counts: Floats, start: Floats) -> Floats:
        """Intercept and slope, (2, n_replicates); NaN in both where Newton finds none."""
        targets: Floats = self._targets @ counts
        beta = start
        done = np.zeros(counts.shape[1], np.bool_)
        for _ in range(STEPS):
            p = _sigmoid(self._design[1][:, None] * beta[1] + beta[0])
            expected = counts * p
            sums = self._design @ expected
            a, b, c = self._squares @ np.multiply(expected, 1 - p, out=p)
            separated = targets[0] + sums[0] - 2 * sums[2] < LEAST_ERROR
            step = np.where(separated, math.nan, _solve(a, b, c, targets - sums[:2]))
            beta = beta + np.where(done, 0, np.clip(step, -CAUTION[:, None], CAUTION[:, None]))
            done |= np.abs(step).max(axis=0) < CLOSE
            if (done | np.isnan(beta[0])).all():
                break
        found = done & (np.abs(beta[1]) < LARGEST_SLOPE)
        return np.where(found, beta, math.nan)

    def _fit_intercept(self, counts: Floats, start: Floats) -> Floats:
        target: Floats = self._targets[0] @ counts
        alpha: Floats = start
        undefined = (target == 0) | (target == counts.sum(axis=0))
        for _ in range(STEPS):
            p = 1 / (1 + self._odds[:, None] * np.exp(-alpha))
            expected = counts * p
            slack = np.einsum("ij,ij->j", expected, 1 - p)
            step = (target - expected.sum(axis=0)) / np.where(undefined, math.nan, slack)
            alpha = alpha + np.clip(step, -CAUTION[0], CAUTION[0])
            if (undefined | (np.abs(step) < CLOSE)).all():
                return alpha
        found: Floats = np.where(np.abs(step) < CLOSE, alpha, math.nan)
        return found


def _sigmoid(z: Floats) -> Floats:
    with np.errstate(over="ignore"):  # 1 / infinity is the 0 that is meant
        np.exp(np.negative(z, out=z), out=z)
    z += 1
    return np.divide(1, z, out=z)


def _solve(a: Floats, b: Floats, c: Floats, gradient: Floats) -> Floats:
    """The step of [[a, b], [b, c]] step = gradient, per replicate; NaN where there is none."""
    determinant = a * c - b * b
    determinant = np.where(determinant > 1e-12 * a * c, determinant, math.nan)
    first = (c * gradient[0] - b * gradient[1]) / determinant
    second = (a * gradient[1] - b * gradient[0]) / determinant
    return np.stack([first, second])
