"""Images whose true probabilities are known: labels are drawn from them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def honest(n: int = 4000, *, n_classes: int = 2, seed: int = 0) -> tuple[Floats, Ints]:
    """Probabilities that mean what they say, (n, n_classes), and labels, (n,)."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(n_classes), n)
    return probs, drawn(probs, seed=1000 + seed)


def drawn(probs: Floats, *, seed: int = 1000) -> Ints:
    """A label for each row, (n,), with the probabilities it says."""
    below = probs.cumsum(axis=1)[:, :-1] < np.random.default_rng(seed).random((len(probs), 1))
    labels: Ints = below.sum(axis=1).astype(np.int64)
    return labels


def two_columns(score: Floats, column: int = 1) -> Floats:
    """(n, 2) from the probability of one class."""
    rest = 1 - score
    return np.stack((rest, score) if column else (score, rest), axis=1)
