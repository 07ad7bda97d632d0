"""One temperature, fitted fast: what a candidate is worth once it is calibrated."""

import numpy as np
from numpy.typing import NDArray

from search.training.metrics import NLL_FLOOR

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SHARPEST = 100.0  # 1 / temperature lies between its inverse and itself
ENOUGH = 2000  # images for one number


def tempered_label_probs(probs: NDArray[np.floating], labels: Ints) -> NDArray[np.float32]:
    """The label's probability after the temperature that suits these images best, (n_images,).

    Being too sure is what a calibrator mends: candidates that stand alone are ranked without it.

    Args:
        probs: (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
    """
    some = np.linspace(0, len(labels) - 1, min(ENOUGH, len(labels))).astype(np.int64)
    logits = np.log(np.maximum(np.asarray(probs, np.float64), NLL_FLOOR))
    scaled = fit_sharpness(logits[some], labels[some]) * logits
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    own = powers[np.arange(len(labels)), labels] / powers.sum(axis=1)
    clipped: NDArray[np.float32] = np.clip(own, NLL_FLOOR, 1).astype(np.float32)
    return clipped


def fit_sharpness(logits: Floats, labels: Ints) -> float:
    """1 / temperature of least log loss, which is convex in it: Newton's method in a bracket."""
    low, high, sharpness = 1 / SHARPEST, SHARPEST, 1.0
    own = logits[np.arange(len(labels)), labels].mean()
    for _ in range(30):
        powers = np.exp(sharpness * (logits - logits.max(axis=1, keepdims=True)))
        probs = powers / powers.sum(axis=1, keepdims=True)
        mean = (probs * logits).sum(axis=1)
        slope = mean.mean() - own
        curvature = ((probs * logits**2).sum(axis=1) - mean**2).mean()
        low, high = (low, sharpness) if slope > 0 else (sharpness, high)
        if abs(slope) < 1e-10:
            break
        step = sharpness - slope / max(curvature, 1e-12)
        sharpness = step if low < step < high else float(np.sqrt(low * high))
    return float(sharpness)
