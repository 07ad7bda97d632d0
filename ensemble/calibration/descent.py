"""Penalised multinomial logistic regression around given logits, by L-BFGS within bounds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ensemble.calibration.logits import Floats

Loss = Callable[[Floats], tuple[float, Floats]]  # value and gradient

STEEPEST = 20.0  # slope of a logit
FARTHEST = 50.0  # bias; e^50 in odds


@dataclass(frozen=True)
class Penalty:
    """Factors of squares: of the matrix's diagonal, of what is beside it, of biases.

    Where `beside` is None the matrix is diagonal.
    """

    diagonal: float
    beside: float | None
    bias: float


def fit_deviation(
    logits: Floats, targets: Floats, penalty: Penalty, *, free: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """D and b with the least penalised log loss of softmax(logits @ (I + D).T + b).

    Args:
        logits: (n_images, n_classes).
        targets: as logits; rows sum to 1.
        penalty: of D and of the bias at the mean of the logits, against the mean log loss.
        free: (n_classes,); the other classes' rows of D and biases are 0.

    Returns:
        D, (n_classes, n_classes), with its diagonal at least -1; b, (n_classes,).
    """
    k = logits.shape[1]
    eye, line = np.eye(k), np.ones((1, k))
    ridge = np.append(np.where(eye, penalty.diagonal, penalty.beside or 0), penalty.bias * line, 0)
    # Around their mean, slopes and biases hardly depend on one another: a fifth of the steps.
    mean = logits.mean(axis=0)
    loss = _penalised(logits, targets, logits - mean, ridge)
    open_cells = free & np.append(eye > 0 if penalty.beside is None else eye < 2, line > 0, 0)
    low = np.append(np.where(eye, -1, -STEEPEST), -FARTHEST * line, 0) * open_cells
    high = np.append(np.full((k, k), STEEPEST), FARTHEST * line, 0) * open_cells
    found = minimise(loss, np.zeros(ridge.size), low.ravel(), high.ravel()).reshape(k + 1, k)
    return found[:k].T, found[k] - mean @ found[:k]


def _penalised(logits: Floats, targets: Floats, centred: Floats, ridge: Floats) -> Loss:
    """Of (n_classes + 1, n_classes) flat: a row for each class that goes in, then the biases."""
    n, k = logits.shape
    inputs = np.append(centred, np.ones((n, 1)), axis=1)

    def loss(flat: Floats) -> tuple[float, Floats]:
        deviation = flat.reshape(k + 1, k)
        moved = logits + inputs @ deviation
        top = moved.max(axis=1, keepdims=True)
        powers = np.exp(moved - top)
        sums = powers.sum(axis=1, keepdims=True)
        value = (np.log(sums) + top).mean() - (targets * moved).sum() / n
        gradient = inputs.T @ (powers / sums - targets) / n
        penalty = (ridge * deviation**2).sum()
        return float(value + penalty), (gradient + 2 * ridge * deviation).ravel()

    return loss


def minimise(loss: Loss, start: Floats, low: Floats, high: Floats) -> Floats:
    """Where a loss is least within bounds; a coordinate whose bounds are equal stays there."""
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([low, high], axis=1),
        options={"maxiter": 1000, "maxcor": 20, "ftol": 1e-11, "gtol": 1e-6},
    )
    best: Floats = found.x
    return best
