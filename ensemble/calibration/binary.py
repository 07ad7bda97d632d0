"""Calibrators of two classes: parametric, never changing the order by the class's probability."""

from typing import Literal

from pydantic import Field

from ensemble.calibration.logits import Floats, Probs, beside, log_odds, scores_of, sigmoid
from search.params import Config

LARGEST = 1e6  # of any parameter that is read: logits stay finite


class Platt(Config):
    """sigmoid(a * logit + b) of the class `column`.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999; here on the logit.
    """

    kind: Literal["platt"] = "platt"
    column: int = Field(ge=0, le=1, description="index of the class that is calibrated")
    a: float = Field(1.0, ge=0, le=LARGEST)
    b: float = Field(0.0, ge=-LARGEST, le=LARGEST)

    def apply(self, probs: Probs) -> Floats:
        log_p, log_rest = log_odds(scores_of(probs, self.column))
        logit = self.a * (log_p - log_rest) + self.b
        return beside(self.column, sigmoid(logit), sigmoid(-logit))


class Beta(Config):
    """sigmoid(a * log p - b * log(1 - p) + c) of the class `column`: each tail has its own slope.

    Source: Kull, Silva Filho & Flach, "Beta calibration", AISTATS 2017.
    """

    kind: Literal["beta"] = "beta"
    column: int = Field(ge=0, le=1, description="index of the class that is calibrated")
    a: float = Field(1.0, ge=0, le=LARGEST)
    b: float = Field(1.0, ge=0, le=LARGEST)
    c: float = Field(0.0, ge=-LARGEST, le=LARGEST)

    def apply(self, probs: Probs) -> Floats:
        log_p, log_rest = log_odds(scores_of(probs, self.column))
        logit = self.a * log_p - self.b * log_rest + self.c
        return beside(self.column, sigmoid(logit), sigmoid(-logit))
