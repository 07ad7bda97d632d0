"""Inductive Venn-Abers: an isotonic fit for each label that an image may turn out to have."""

from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ensemble.calibration.logits import Floats, Probs, beside, scores_of
from search.params import Config, Share

LONGEST = 100_000  # steps that are kept or read
Steps = Annotated[tuple[Share, ...], Field(min_length=1, max_length=LONGEST)]
Ints = NDArray[np.int64]


class VennAbers(Config):
    """p1 / (1 - p0 + p1), with p0 and p1 step functions of the probability of class `column`.

    p0 holds from its score up to the next one, and is 0 below all; p1 holds up to its score from
    the one before, and is 1 above all.

    Source: Vovk, Petej & Fedorova, "Large-scale probabilistic predictors with and without
    guarantees of validity", NeurIPS 2015.
    """

    kind: Literal["venn_abers"] = "venn_abers"
    column: int = Field(ge=0, le=1, description="index of the class that is calibrated")
    scores: Steps = Field(description="where a step function changes, upwards")
    p0: Steps = Field(description="isotonic fit at each score were it a negative's")
    p1: Steps = Field(description="isotonic fit at each score were it a positive's")

    @model_validator(mode="after")
    def _two_step_functions(self) -> Self:
        scores, p0, p1 = (np.array(values) for values in (self.scores, self.p0, self.p1))
        if not len(scores) == len(p0) == len(p1):
            raise ValueError("scores, p0 and p1 must be of one length")
        if not ((np.diff(scores) > 0).all() and (np.diff([p0, p1]) >= 0).all()):
            raise ValueError("scores must increase, p0 and p1 must not decrease")
        if not (p0 < p1).all():
            raise ValueError("p0 must be below p1")
        return self

    def apply(self, probs: Probs) -> Floats:
        p0, p1 = self.interval(probs).T
        # In this form rounding cannot change the order of two images.
        return beside(self.column, 1 / (1 + (1 - p0) / p1), 1 / (1 + p1 / (1 - p0)))

    def interval(self, probs: Probs) -> Floats:
        """p0 and p1 of the class `column`, (n_images, 2): one of the two is calibrated."""
        score = scores_of(probs, self.column)
        steps, p0, p1 = self._arrays
        lower = p0[np.searchsorted(steps, score, side="right")]
        return np.stack([lower, p1[np.searchsorted(steps, score, side="left")]], axis=1)

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        return np.array(self.scores), np.array([0.0, *self.p0]), np.array([*self.p1, 1.0])


def fit_venn_abers(score: Floats, is_positive: NDArray[np.bool_], *, column: int) -> VennAbers:
    """Both isotonic fits at every distinct score; O(n log n).

    Between two scores p0 is that of the lower one and p1 that of the higher one: a negative put
    there is pooled with its left neighbour or none, a positive with its right one.

    Args:
        score: probability of the class `column`, (n_images,).
        is_positive: (n_images,), whether the image is of that class.
    """
    scores, index = np.unique(score, return_inverse=True)
    weights = np.bincount(index)
    hits = np.bincount(index[is_positive], minlength=len(scores))
    p1 = _with_a_positive(weights, hits)
    p0 = 1 - _with_a_positive(weights[::-1], (weights - hits)[::-1])[::-1]
    # A score at which neither function changes can be left out.
    kept = (np.diff(p0, prepend=0) != 0) | (np.diff(p1, append=1) != 0)
    return VennAbers(
        column=column,
        scores=tuple(scores[kept].tolist()),
        p0=tuple(p0[kept].tolist()),
        p1=tuple(p1[kept].tolist()),
    )


def _with_a_positive(weights: Ints, hits: Ints) -> Floats:
    """The isotonic fit's value at each score if one more positive had that score.

    It is a slope of the greatest convex minorant of the points (images, hits) counted upwards,
    with those left of the added positive moved by (-1, -1). `corners` are those of the minorant
    from the edge across the added positive to the right; the edge's ends are on top.

    Source: algorithms 1 and 2 of Vovk et al. 2015; whole numbers, so that no comparison rounds.
    """
    points = [(0, 0), *zip(np.cumsum(weights).tolist(), np.cumsum(hits).tolist(), strict=True)]
    corners: list[tuple[int, int]] = []
    for point in [*reversed(points), (-1, -1)]:
        _push(corners, point)
    values = np.empty(len(weights))
    for i, (x, y) in enumerate(points[1:]):
        left, right = corners[-1], corners[-2]
        values[i] = (right[1] - left[1]) / (right[0] - left[0])
        moved = (x - 1, y - 1)
        if _turn(left, moved, right) > 0:  # it lies below the edge
            corners.pop()
            _push(corners, moved)
    return values


def _push(corners: list[tuple[int, int]], point: tuple[int, int]) -> None:
    """Put a point left of all corners, and take away those that it makes none."""
    while len(corners) > 1 and _turn(point, corners[-1], corners[-2]) <= 0:
        corners.pop()
    corners.append(point)


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    """Positive where the path from a by b to c, left to right, turns upwards."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
