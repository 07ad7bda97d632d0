"""The smooth calibration error finds a known gap and next to none in calibrated data."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.evaluation.smooth import CELLS, cells, smooth_ece

Floats = NDArray[np.float64]


def error(confidence: Floats, outcome: NDArray[np.bool_]) -> float:
    gaps = np.bincount(cells(confidence), weights=outcome - confidence, minlength=CELLS)
    return float(smooth_ece(gaps[:, None] / len(outcome))[0])


def drawn(n: int, *, shift: float) -> tuple[Floats, NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.7, n)
    return truth + shift, rng.uniform(size=n) < truth


def test_calibrated_probabilities_have_next_to_no_error() -> None:
    assert error(*drawn(20_000, shift=0)) < 0.01


def test_probabilities_a_tenth_too_high_have_an_error_of_a_tenth() -> None:
    assert error(*drawn(20_000, shift=0.1)) == pytest.approx(0.1, abs=0.01)


def test_outcomes_that_are_certain_and_right_have_no_error() -> None:
    assert error(np.array([0.0, 1.0]), np.array([False, True])) < 1e-5


def test_it_is_the_fixed_point_of_the_reflected_gaussian() -> None:
    confidence, outcome = drawn(60, shift=0.08)
    found = error(confidence, outcome)
    grid = (np.arange(4000) + 0.5) / 4000
    images = np.concatenate([confidence + 2 * k for k in range(-3, 4)])
    images = np.concatenate([images, -images])
    gaussian = np.exp(-((grid[:, None] - images) ** 2) / (2 * found**2))
    gaussian /= found * np.sqrt(2 * np.pi)
    residuals = np.tile(outcome - confidence, 14) / len(outcome)
    by_definition = float(np.abs(gaussian @ residuals).mean())
    assert by_definition == pytest.approx(found, abs=1e-3)


def test_replicates_are_worked_out_each_on_its_own() -> None:
    rng = np.random.default_rng(1)
    gaps = rng.normal(size=(CELLS, 3)) / CELLS + np.array([0, 0.0005, -0.001])
    together = smooth_ece(gaps)
    alone = [float(smooth_ece(gaps[:, [column]])[0]) for column in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-12)
    assert together[0] < together[1] < together[2]
