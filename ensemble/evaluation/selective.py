"""What is gained by deciding only the images one is sure of.

Confidence is the most probable class's probability; a decision is wrong where that class is not
the label. Where confidences are equal, the expectation over all orders of them counts.
"""

import numpy as np
from numpy.typing import NDArray

from ensemble.evaluation.ladder import Ladder
from ensemble.evaluation.results import RiskCoverage
from search.training.thresholds import ranking

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_POINTS = 200


def risk_areas(ladder: Ladder, counts: Floats) -> dict[str, Floats]:
    """AURC and AUGRC, (n_replicates,) each; the lower, the better.

    aurc: the mean over i of the share of wrong decisions among the i most confident images.
    augrc: the area under (wrong decisions among the most confident) / (all images) by coverage,
    which equals (1 - AUROC of the failures) * accuracy * (1 - accuracy) + (1 - accuracy)^2 / 2.

    Args:
        ladder: confidences, with the wrong decisions as its events.
        counts: (n_images, n_replicates); whole, each column with at least one image.

    Source: Geifman & El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017;
    Traub et al., "Overcoming common flaws in the evaluation of selective classification
    systems", NeurIPS 2024.
    """
    images, wrong = ladder.climb(counts)
    kept = np.cumsum(images, axis=0)
    before = np.cumsum(wrong, axis=0) - wrong
    n = kept[-1]
    share = wrong / np.maximum(images, 1)
    # On a rung, wrong decisions grow by `share` an image: the sum of (w + share * j) / (k + j)
    # over its images is a difference of harmonic numbers.
    whole = np.rint(kept).astype(np.int64)
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, whole[-1].max() + 1)))
    reached = harmonic[whole]
    grown = np.diff(reached, axis=0, prepend=0)
    risks = wrong + (before - share * (kept - images)) * grown
    return {
        "aurc": np.sum(risks, axis=0) / n,
        "augrc": np.sum(images * (before + wrong / 2), axis=0) / n**2,
    }


def risk_coverage(probs: NDArray[np.floating], labels: Ints) -> RiskCoverage:
    """Share of wrong decisions among the most confident images, at most at 200 coverages.

    Args:
        probs: (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
    """
    p = np.asarray(probs, np.float64)
    _, wrong, right = ranking(p.max(axis=1), p.argmax(axis=1) != labels)
    n = len(p)
    kept = np.unique(np.rint(np.linspace(1, n, min(n, MAX_POINTS))))
    errors = np.interp(kept, np.append(0, wrong + right), np.append(0, wrong))
    return RiskCoverage(coverage=(kept / n).tolist(), risk=(errors / kept).tolist())
