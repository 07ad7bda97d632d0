"""How sure a mean over images is, where some images are linked."""

import numpy as np
from numpy.typing import NDArray


def clustered_error(difference: NDArray[np.floating], groups: NDArray[np.int64]) -> float:
    """Standard error of a mean over images, where images of a group go together.

    With one group it is unknown, and taken to be as large as the mean.

    Args:
        difference: by image, (n_images,).
        groups: linked images share one, (n_images,).

    Source: Liang & Zeger, Biometrika 73 (1986), with G / (G - 1) for few groups.
    """
    mean = float(difference.mean())
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=difference - mean)
    n_groups = len(sums)
    if n_groups < 2:
        return abs(mean)
    return float(np.sqrt(n_groups / (n_groups - 1) * (sums**2).sum()) / len(difference))
