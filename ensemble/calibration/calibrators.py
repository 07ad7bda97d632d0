"""Calibrators: maps from pooled probabilities to calibrated ones, as plain parameters.

All take and give (n_images, n_classes), rows summing to 1. Those of two classes change the
probability of the class `column`, and never the order of two images by it (but for the last bit).
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Discriminator, Field

from ensemble.calibration.binary import Beta, Platt
from ensemble.calibration.logits import SMALLEST, Floats, Probs, log_probs, softmax
from ensemble.calibration.multiclass import Structured, Vector
from ensemble.calibration.venn_abers import VennAbers
from search.params import Config

__all__ = [
    "SMALLEST", "Beta", "Calibrator", "Identity", "Kind", "Platt", "Structured", "Temperature",
    "Vector", "VennAbers",
]  # fmt: skip

Kind = Literal["identity", "temperature", "platt", "beta", "venn_abers", "vector", "structured"]


class Identity(Config):
    """Probabilities as they are."""

    kind: Literal["identity"] = "identity"

    def apply(self, probs: Probs) -> Floats:
        return np.asarray(probs, np.float64)


class Temperature(Config):
    """p^(1/T), renormalised: above 1 it takes confidence back, below 1 it adds some.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    kind: Literal["temperature"] = "temperature"
    temperature: float = Field(1.0, ge=1e-3, le=1e3)

    def apply(self, probs: Probs) -> Floats:
        return softmax(log_probs(probs) / self.temperature)


Calibrator = Annotated[
    Identity | Temperature | Platt | Beta | VennAbers | Vector | Structured, Discriminator("kind")
]
