"""Greedy selection as one would write it down first: the measure of how fast the real one is."""

import numpy as np
from numpy.typing import NDArray

from ensemble.pool import pool_probs
from search.training.metrics import nll

TIE = 1e-12  # nats; rounding must not decide between equal candidates


def plain_greedy(
    oof_probs: NDArray[np.floating], labels: NDArray[np.int64], rounds: int
) -> tuple[NDArray[np.float64], list[float]]:
    """Weights and the log loss after each pick, as `ensemble.selection.greedy.greedy`.

    Each candidate is pooled with those picked before, (n_images, n_classes), and scored.
    """
    counts = np.zeros(len(oof_probs))
    picked = np.zeros(oof_probs.shape[1:])
    paths, trajectory = [], []
    for i in range(rounds):
        shares = np.array([i, 1]) / (i + 1)
        before = picked / max(i, 1)
        losses = [
            nll(probs, labels)
            if i == 0
            else nll(pool_probs(np.stack([before, probs]), shares), labels)
            for probs in oof_probs
        ]
        pick = _first_of_least(losses)
        picked = picked + oof_probs[pick]
        counts[pick] += 1
        paths.append(counts / (i + 1))
        trajectory.append(losses[pick])
    return paths[_first_of_least(trajectory)], trajectory


def _first_of_least(losses: list[float]) -> int:
    return next(i for i, loss in enumerate(losses) if loss <= min(losses) + TIE)
