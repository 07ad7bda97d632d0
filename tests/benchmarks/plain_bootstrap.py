"""The grouped bootstrap as one writes it first: draw rows, compute all metrics, do it again."""

import numpy as np
from numpy.typing import NDArray

from search.training.metrics import evaluate_probs


def plain_bootstrap(
    probs: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    positive: int | None,
    replicates: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """95% intervals of evaluate_probs' metrics.

    Args:
        probs: (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        groups: (n_images,); linked images share a number.
        positive: class index, or None: macro averages.
        replicates: draws.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    names, group = np.unique(groups, return_inverse=True)
    rows = []
    for _ in range(replicates):
        drawn = rng.integers(0, len(names), len(names))
        times = np.bincount(drawn, minlength=len(names))[group]
        picked = np.repeat(np.arange(len(labels)), times)
        rows.append(evaluate_probs(probs[picked], labels[picked], positive=positive))
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        name: (float(np.nanpercentile(values, 2.5)), float(np.nanpercentile(values, 97.5)))
        for name, values in table.items()
    }
