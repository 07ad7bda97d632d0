"""Many members' probabilities into one: the weighted mean, arithmetic or geometric."""

import numpy as np
from numpy.typing import NDArray

from search.training.metrics import NLL_FLOOR


def pool_probs(
    member_probs: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Average members in probability space.

    Args:
        member_probs: (n_members, n_images, n_classes); rows sum to 1.
        weights: (n_members,), summing to 1.

    Returns:
        (n_images, n_classes); rows sum to 1.
    """
    pooled: NDArray[np.float64] = np.tensordot(
        np.asarray(weights, np.float64), np.asarray(member_probs, np.float64), axes=1
    )
    return pooled


def pool_logits(
    member_probs: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Average members' logits: the weighted geometric mean of their probabilities, renormalised.

    Logits that differ by a constant a row are one and the same distribution, so the logarithms of
    the probabilities serve as logits. A probability below 1e-7 counts as 1e-7.

    Args:
        member_probs: (n_members, n_images, n_classes); rows sum to 1.
        weights: (n_members,), summing to 1.

    Returns:
        (n_images, n_classes); rows sum to 1.
    """
    logs = np.log(np.maximum(np.asarray(member_probs, np.float64), NLL_FLOOR))
    logits = np.tensordot(np.asarray(weights, np.float64), logs, axes=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    pooled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return pooled
