"""Between probabilities and logits: what all calibrators share. Nothing here is ever infinite."""

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-7  # probabilities below it count as this, as in the NLL
Probs = NDArray[np.floating]
Floats = NDArray[np.float64]


def log_probs(probs: Probs) -> Floats:
    """Logarithms, in [log 1e-7, 0]; any shape."""
    logs: Floats = np.log(np.clip(np.asarray(probs, np.float64), SMALLEST, 1))
    return logs


def softmax(logits: Floats) -> Floats:
    """Rows of (n_images, n_classes) to probabilities that sum to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probs


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logit)), exact in both tails."""
    small = np.exp(-np.abs(logits))
    probs: Floats = np.where(logits >= 0, 1.0, small) / (1 + small)
    return probs


def scores_of(probs: Probs, column: int) -> Floats:
    """The probability of one class of two, (n_images,), in [0, 1] whatever a sum was rounded to.

    Raises:
        ValueError: there are not two classes.
    """
    if probs.ndim != 2 or probs.shape[1] != 2:
        raise ValueError(f"probs must be (n_images, 2), the shape is {probs.shape}")
    return np.clip(probs[:, column].astype(np.float64), 0, 1)


def log_odds(score: Floats) -> tuple[Floats, Floats]:
    """log p and log(1 - p), both of p in [1e-7, 1 - 1e-7]."""
    clipped = np.clip(score, SMALLEST, 1 - SMALLEST)
    return np.log(clipped), np.log1p(-clipped)


def beside(column: int, probability: Floats, rest: Floats) -> Floats:
    """(n_images, 2) with the probability in `column` and what is left beside it."""
    pair = (rest, probability) if column else (probability, rest)
    return np.stack(pair, axis=1)
