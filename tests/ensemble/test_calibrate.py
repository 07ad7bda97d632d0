"""A temperature undoes a known distortion and never changes the order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.calibrate import Temperature, fit_temperature
from search.training.metrics import nll


def honest(n: int = 4000, *, n_classes: int = 2) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities that mean what they say: labels are drawn from them."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(n_classes), n)
    labels = (probs.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return probs, labels.astype(np.int64)


@pytest.mark.parametrize("distortion", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_known_distortion_is_found(distortion: float, n_classes: int) -> None:
    probs, labels = honest(n_classes=n_classes)
    distorted = Temperature(temperature=distortion).apply(probs)
    found = fit_temperature(distorted, labels)
    assert found.temperature == pytest.approx(1 / distortion, rel=0.06)


def test_it_never_makes_the_nll_of_its_own_images_worse() -> None:
    probs, labels = honest(300)
    distorted = Temperature(temperature=0.3).apply(probs)
    assert nll(fit_temperature(distorted, labels).apply(distorted), labels) < nll(distorted, labels)


@given(st.floats(0.1, 10))
def test_the_order_of_images_stays(temperature: float) -> None:
    probs, _ = honest(50)
    calibrated = Temperature(temperature=temperature).apply(probs)
    assert (np.diff(calibrated[np.argsort(probs[:, 1]), 1]) >= 0).all()
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_a_temperature_of_one_changes_nothing() -> None:
    probs, _ = honest(20)
    np.testing.assert_allclose(Temperature().apply(probs), probs, atol=1e-6)


def test_certainty_stays_finite() -> None:
    calibrated = Temperature(temperature=2).apply(np.array([[1.0, 0.0]]))
    assert np.isfinite(calibrated).all()
    assert calibrated[0, 0] > 0.99
