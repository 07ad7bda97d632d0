"""Candidates whose worth is known, because it was put in."""

import numpy as np
from numpy.typing import NDArray

from ensemble.selection.greedy import Costs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    powers: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probs


def simulated(
    signals: list[float], *, n_images: int = 300, n_classes: int = 3, seed: int = 0
) -> tuple[Floats, Ints]:
    """One candidate a signal, with independent noise: 0 is useless, 3 is good."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_images)
    logits = rng.normal(size=(len(signals), n_images, n_classes))
    logits[:, np.arange(n_images), labels] += np.array(signals)[:, None]
    return softmax(logits), labels


def same_costs(n_candidates: int) -> Costs:
    return Costs(params_m=np.full(n_candidates, 2.0), latency_ms=np.full(n_candidates, 10.0))
