"""Many members' probabilities into one: the weighted arithmetic mean."""

import numpy as np
from numpy.typing import NDArray


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
