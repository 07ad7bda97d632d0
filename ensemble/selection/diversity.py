"""How alike candidates are: where they decide differently, and whether they err together."""

from collections.abc import Sequence

import numpy as np

from ensemble.selection.greedy import Floats, Ints, Probs, label_probs
from ensemble.selection.results import Pair

# Two trainings of the same params with other seeds correlate at 0.9 to 0.98 and differ on several
# in a hundred images; beyond both of these it is one network twice, or a step apart.
COPY_CORRELATION = 0.995
COPY_DISAGREEMENT = 0.01


def pairs(oof_probs: Probs, labels: Ints, *, among: Sequence[int] | None = None) -> list[Pair]:
    """Compare every two candidates.

    Args:
        oof_probs: (n_candidates, n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        among: indices of the candidates to compare; all if None.

    Returns:
        One a pair, first < second, in their order. The correlation, in [-1, 1], is 0 where a
        candidate errs alike on all images.
    """
    chosen = np.arange(len(oof_probs)) if among is None else np.unique(np.asarray(among, np.int64))
    probs = oof_probs if among is None else oof_probs[chosen]
    disagreement = _disagreements(probs)
    correlation = _error_correlations(label_probs(probs, labels))
    copies = (correlation > COPY_CORRELATION) & (disagreement < COPY_DISAGREEMENT)
    first, second = np.triu_indices(len(chosen), k=1)
    return [
        Pair(
            first=int(chosen[i]),
            second=int(chosen[j]),
            disagreement=float(disagreement[i, j]),
            error_correlation=float(correlation[i, j]),
            near_copy=bool(copies[i, j]),
        )
        for i, j in zip(first.tolist(), second.tolist(), strict=True)
    ]


def _disagreements(probs: Probs) -> Floats:
    """Share of images with different most probable classes, (n_candidates, n_candidates)."""
    top = _most_probable(probs)
    n_candidates, n_images = top.shape
    agreed = np.zeros((n_candidates, n_candidates))
    for k in range(probs.shape[2]):
        # One product a class counts the images on which two both say k; exact in float32.
        says = (top == k).astype(np.float32)
        agreed += says @ says.T
    shares: Floats = 1 - agreed / n_images
    return shares


def _most_probable(probs: Probs) -> Ints:
    """Argmax over the classes, of equals the first; a loop over few classes is faster."""
    top = np.zeros(probs.shape[:2], np.int64)
    highest = probs[:, :, 0].copy()
    for k in range(1, probs.shape[2]):
        higher = probs[:, :, k] > highest
        top[higher] = k
        np.maximum(highest, probs[:, :, k], out=highest)
    return top


def _error_correlations(given: Probs) -> Floats:
    """Pearson's correlation of 1 - label's probability, (n_candidates, n_candidates)."""
    centred = given - given.mean(axis=1, keepdims=True, dtype=np.float64)
    length = np.sqrt((centred**2).sum(axis=1))
    products = centred @ centred.T
    scale = np.outer(length, length)
    correlation = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    bounded: Floats = np.clip(correlation, -1, 1)
    return bounded
