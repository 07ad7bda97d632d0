"""Which candidates become members, by their out-of-fold probabilities."""

import numpy as np
from numpy.typing import NDArray

from ensemble.pool import pool_probs
from search.training.metrics import nll


def select_top(
    oof_probs: NDArray[np.floating], labels: NDArray[np.int64], *, members: int
) -> NDArray[np.float64]:
    """Weigh the best candidates alike, as many as give the pool the least log loss.

    Args:
        oof_probs: (n_candidates, n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        members: the most candidates that may get a weight.

    Returns:
        (n_candidates,) weights summing to 1; 0 means left out. Ties go to fewer members, and
        to the earlier candidate.
    """
    ranked = np.argsort([nll(probs, labels) for probs in oof_probs], kind="stable")
    options = []
    for count in range(1, min(members, len(ranked)) + 1):
        weights = np.zeros(len(ranked))
        weights[ranked[:count]] = 1 / count
        options.append(weights)
    return min(options, key=lambda weights: nll(pool_probs(oof_probs, weights), labels))
