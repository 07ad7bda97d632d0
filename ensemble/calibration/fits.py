"""Fits of calibrators: least log loss on held-back images.

Held-back images that are told apart perfectly would ask for infinite confidence. So two classes
are fitted to Platt's targets, and more classes (and every temperature) as if one more image had
been seen that is of all classes alike.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ensemble.calibration.calibrators import (
    Beta,
    Calibrator,
    Identity,
    Kind,
    Platt,
    Structured,
    Temperature,
    Vector,
)
from ensemble.calibration.descent import FARTHEST, STEEPEST, Penalty, fit_deviation, minimise
from ensemble.calibration.logits import (
    Floats,
    Probs,
    log_odds,
    log_probs,
    scores_of,
    sigmoid,
    softmax,
)
from ensemble.calibration.venn_abers import fit_venn_abers
from search.errors import StudyError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def fit(kind: Kind, probs: Probs, labels: Ints, *, column: int = 1) -> Calibrator:
    """The calibrator of that kind with the least log loss on held-back images.

    Args:
        probs: pooled, (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        column: the class whose probability the calibrators of two classes change.

    Raises:
        StudyError: no image, NaN, or, with two classes, images of one class only.
        ValueError: a calibrator of two classes for more of them.
    """
    check_held_back(probs, labels, column=column)
    return fit_part(kind, probs, labels, column=column)


def fit_part(kind: Kind, probs: Probs, labels: Ints, *, column: int) -> Calibrator:
    """As `fit`, on a part of checked images, which may lack a class."""
    if kind == "identity":
        return Identity()
    if kind in ANY_CLASSES:
        return ANY_CLASSES[kind](probs, labels)
    return TWO_CLASSES[kind](scores_of(probs, column), labels == column, column=column)


def check_held_back(probs: Probs, labels: Ints, *, column: int = 1) -> None:
    """Refuse images that nothing can be fitted to.

    Raises:
        StudyError: no image, NaN, or, with two classes, images of one class only.
    """
    n = len(labels)
    if n == 0:
        raise StudyError("no image in the calibration slice; raise splits.calibration")
    broken = np.flatnonzero(~np.isfinite(probs).all(axis=1))
    if len(broken):
        raise StudyError(
            f"NaN or infinite probabilities for {len(broken)} of {n} images of the calibration "
            f"slice, first in row {broken[0]}; train that candidate again or leave it out"
        )
    n_positive = int(np.count_nonzero(labels == column))
    if probs.shape[1] == 2 and n_positive in {0, n}:
        lacking = "negatives" if n_positive else "positives"
        raise StudyError(
            f"no {lacking} in the calibration slice: none of its {n} images is one, and "
            "calibration needs both; raise splits.calibration"
        )


def fit_temperature(probs: Probs, labels: Ints) -> Temperature:
    """The temperature with the least log loss, within 0.05 to 20.

    Args:
        probs: (n_images, n_classes).
        labels: class indices, (n_images,).
    """
    logs = log_probs(probs)
    wanted = float((targets_of(labels, logs.shape[1]) * logs).sum())

    def slope(inverse: float) -> float:
        """Of the log loss by 1/T, in which it is convex."""
        return float((softmax(logs * inverse) * logs).sum()) - wanted

    low, high = 1 / STEEPEST, STEEPEST
    if slope(low) >= 0:
        return Temperature(temperature=1 / low)
    if slope(high) <= 0:
        return Temperature(temperature=1 / high)
    return Temperature(temperature=round(1 / brentq(slope, low, high, xtol=1e-9), 6))


def fit_platt(score: Floats, is_positive: Bools, *, column: int) -> Platt:
    """Slope in [0, 20] and intercept; score: probability of the class `column`, (n_images,)."""
    log_p, log_rest = log_odds(score)
    a, b = _fit_increasing(np.stack([log_p - log_rest], axis=1), is_positive).tolist()
    return Platt(column=column, a=a, b=b)


def fit_beta(score: Floats, is_positive: Bools, *, column: int) -> Beta:
    """Slopes in [0, 20] and intercept; score: probability of the class `column`, (n_images,)."""
    log_p, log_rest = log_odds(score)
    a, b, c = _fit_increasing(np.stack([log_p, -log_rest], axis=1), is_positive).tolist()
    return Beta(column=column, a=a, b=b, c=c)


def fit_vector(probs: Probs, labels: Ints) -> Vector:
    """Scales and biases around the best temperature; ridge penalties of 1 / n_images on both."""
    n = len(probs)
    penalty = Penalty(diagonal=1 / n, beside=None, bias=1 / n)
    matrix, bias = _fit_matrix(probs, labels, penalty)
    return Vector(scale=tuple(matrix.diagonal().tolist()), bias=tuple(bias.tolist()))


def fit_structured(probs: Probs, labels: Ints) -> Structured:
    """A matrix and biases around the best temperature.

    Ridge penalties, with k classes: k / n_images on the diagonal's deviation and on biases,
    k (k - 1) / n_images on what is beside the diagonal.

    Source of the strengths: Berta et al. 2025, factors and exponents all 1; there the penalised
    bias is that at log probabilities of 0, here it is that at their mean, apart from D.
    """
    n, k = probs.shape
    penalty = Penalty(diagonal=k / n, beside=k * (k - 1) / n, bias=k / n)
    matrix, bias = _fit_matrix(probs, labels, penalty)
    return Structured(matrix=tuple(map(tuple, matrix.tolist())), bias=tuple(bias.tolist()))


def targets_of(labels: Ints, n_classes: int) -> Floats:
    """(n_images, n_classes): rows sum to 1, with 1 / (n_images + 1) of it for all classes alike."""
    share = 1 / (len(labels) + 1)
    return np.eye(n_classes)[labels] * (1 - share) + share / n_classes


def _fit_matrix(probs: Probs, labels: Ints, penalty: Penalty) -> tuple[Floats, Floats]:
    """(I + D) / T and the bias; T is the best temperature alone.

    A class without an image keeps its row of I and a bias of 0: nothing is known about it.
    """
    k = probs.shape[1]
    temperature = fit_temperature(probs, labels).temperature
    seen = np.bincount(labels, minlength=k) > 0
    logits = log_probs(probs) / temperature
    deviation, bias = fit_deviation(logits, targets_of(labels, k), penalty, free=seen)
    return (np.eye(k) + deviation) / temperature, bias


def _fit_increasing(features: Floats, is_positive: Bools) -> Floats:
    """Slopes in [0, 20], then the intercept, of a logistic regression on (n_images, n_features).

    Source of the targets: Platt 1999, (n₊ + 1) / (n₊ + 2) for a positive, 1 / (n₋ + 2) otherwise.
    """
    (n, n_slopes), n_positive = features.shape, int(is_positive.sum())
    above, below = (n_positive + 1) / (n_positive + 2), 1 / (n - n_positive + 2)
    targets = np.where(is_positive, above, below)
    columns = np.append(features, np.ones((n, 1)), axis=1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = columns @ weights
        value = np.mean(np.logaddexp(0, logits) - targets * logits)
        return float(value), columns.T @ (sigmoid(logits) - targets) / n

    low = np.append(np.zeros(n_slopes), -FARTHEST)
    high = np.append(np.full(n_slopes, STEEPEST), FARTHEST)
    return minimise(loss, np.append(np.ones(n_slopes), 0.0), low, high)


ANY_CLASSES: dict[Kind, Callable[[Probs, Ints], Calibrator]] = {
    "temperature": fit_temperature,
    "vector": fit_vector,
    "structured": fit_structured,
}
TWO_CLASSES: dict[Kind, Callable[..., Calibrator]] = {
    "platt": fit_platt,
    "beta": fit_beta,
    "venn_abers": fit_venn_abers,
}
