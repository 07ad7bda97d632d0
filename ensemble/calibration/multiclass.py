"""Calibrators of more classes than two: linear maps of the log probabilities."""

from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ensemble.calibration.logits import Floats, Probs, log_probs, softmax
from search.params import Config

LARGEST = 1e6  # of any parameter that is read: logits stay finite
Value = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Row = Annotated[tuple[Value, ...], Field(min_length=2, max_length=1000)]


class Vector(Config):
    """softmax(scale * log p + bias), a scale and a bias for each class.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    kind: Literal["vector"] = "vector"
    scale: tuple[Annotated[float, Field(ge=0, le=LARGEST)], ...] = Field(
        min_length=2, max_length=1000
    )
    bias: Row

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if len(self.scale) != len(self.bias):
            raise ValueError(f"scale has {len(self.scale)} values, bias has {len(self.bias)}")
        return self

    def apply(self, probs: Probs) -> Floats:
        return softmax(log_probs(probs) * np.array(self.scale) + np.array(self.bias))


class Structured(Config):
    """softmax(matrix @ log p + bias): a class may take from another that it is mistaken for.

    Source: Berta, Holzmüller, Jordan & Bach, "Structured matrix scaling for multi-class
    calibration", 2025.
    """

    kind: Literal["structured"] = "structured"
    matrix: tuple[Row, ...] = Field(min_length=2, max_length=1000, description="rows: class out")
    bias: Row

    @model_validator(mode="after")
    def _square(self) -> Self:
        lengths = {len(self.bias), *(len(row) for row in self.matrix)}
        if lengths != {len(self.matrix)}:
            raise ValueError(f"{len(self.matrix)} rows do not fit lengths {sorted(lengths)}")
        return self

    def apply(self, probs: Probs) -> Floats:
        return softmax(log_probs(probs) @ self._weights + np.array(self.bias))

    @cached_property
    def _weights(self) -> Floats:
        return np.array(self.matrix).T
