"""Calibrators: maps from pooled probabilities to calibrated ones, as plain parameters."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize_scalar

from search.params import Config
from search.training.metrics import nll

SMALLEST = 1e-7  # probabilities below it count as this, as in the NLL


class Temperature(Config):
    """p^(1/T), renormalised: above 1 it takes confidence back, below 1 it adds some.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    kind: Literal["temperature"] = "temperature"
    temperature: float = Field(1.0, gt=0)

    def apply(self, probs: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n_images, n_classes) pooled to the same, calibrated; rows sum to 1."""
        logits = np.log(np.clip(np.asarray(probs, np.float64), SMALLEST, 1)) / self.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        calibrated: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return calibrated


def fit_temperature(probs: NDArray[np.floating], labels: NDArray[np.int64]) -> Temperature:
    """The temperature with the least NLL on held-back images, within 0.05 to 20.

    Args:
        probs: pooled, (n_images, n_classes).
        labels: class indices, (n_images,).
    """

    def loss(log_temperature: float) -> float:
        return nll(Temperature(temperature=float(np.exp(log_temperature))).apply(probs), labels)

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return Temperature(temperature=round(float(np.exp(found.x)), 6))
