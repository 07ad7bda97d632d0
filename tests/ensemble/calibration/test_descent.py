"""The penalised loss has the gradient it says, and its least value is found within bounds."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from ensemble.calibration.descent import Penalty, _penalised, fit_deviation, minimise
from ensemble.calibration.logits import log_probs, softmax
from tests.ensemble.calibration.simulated import honest

ALL = np.ones(3, bool)


def test_the_gradient_is_the_loss_functions_own() -> None:
    probs, labels = honest(50, n_classes=3)
    logits, targets = log_probs(probs), np.eye(3)[labels]
    ridge = np.array([[1, 2, 2], [2, 1, 2], [2, 2, 1], [3, 3, 3]]) / 10
    loss = _penalised(logits, targets, logits - logits.mean(axis=0), ridge)
    at = np.random.default_rng(0).normal(size=12)
    numeric = approx_fprime(at, lambda flat: loss(flat)[0])
    np.testing.assert_allclose(loss(at)[1], numeric, atol=1e-5)


def test_the_deviation_is_of_the_logits_as_they_were_given() -> None:
    probs, labels = honest(500, n_classes=3)
    logits = log_probs(probs) * 2 + [1, 0, -1]
    matrix, bias = fit_deviation(logits, np.eye(3)[labels], Penalty(0, 0, 0), free=ALL)
    found = softmax(logits @ (np.eye(3) + matrix).T + bias)
    # Without a penalty each class's probability is its share of the labels on average.
    np.testing.assert_allclose(found.mean(axis=0), np.bincount(labels) / 500, atol=1e-4)


@pytest.mark.parametrize("part", ["diagonal", "beside", "bias"])
def test_a_heavy_penalty_holds_its_own_part_and_no_other(part: str) -> None:
    probs, labels = honest(500, n_classes=3)
    logits = log_probs(probs) * 2 + [1, 0, -1]
    factors = {"diagonal": 1e-3, "beside": 1e-3, "bias": 1e-3, part: 1e6}
    matrix, bias = fit_deviation(logits, np.eye(3)[labels], Penalty(**factors), free=ALL)
    at_the_mean = bias + logits.mean(axis=0) @ matrix.T
    sizes = {
        "diagonal": np.abs(matrix.diagonal()).max(),
        "beside": np.abs(matrix - np.diag(matrix.diagonal())).max(),
        "bias": np.abs(at_the_mean).max(),
    }
    assert sizes.pop(part) < 1e-4
    assert min(sizes.values()) > 0.01


def test_a_coordinate_without_room_stays() -> None:
    def bowl(at: np.ndarray) -> tuple[float, np.ndarray]:
        return float(((at - [3, 3, 3]) ** 2).sum()), 2 * (at - [3, 3, 3])

    found = minimise(bowl, np.zeros(3), np.array([0.0, -9, -9]), np.array([0.0, 2, 9]))
    np.testing.assert_allclose(found, [0, 2, 3], atol=1e-5)
