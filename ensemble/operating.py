"""Operating points: thresholds chosen on held-back images, and what is known about them."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ensemble.bundle import OperatingPoint
from search.config import PolicyConfig
from search.training.thresholds import scan_thresholds


def choose_operating_point(
    name: str, policy: PolicyConfig, score: NDArray[np.float64], is_positive: NDArray[np.bool_]
) -> OperatingPoint:
    """Scan all thresholds of the calibrated probability on the calibration slice.

    The sensitivity was measured on the images that chose the threshold: the point is not
    certified, and says so.

    Args:
        score: calibrated probability of the positive class, (n_images,).
        is_positive: (n_images,).
    """
    found = scan_thresholds(score, is_positive, policy)
    hits = round(found.sensitivity * found.n_positive)
    return OperatingPoint(
        name=name,
        threshold=found.threshold,
        target=describe(policy),
        sensitivity=found.sensitivity,
        specificity=found.specificity,
        sensitivity_interval=clopper_pearson(hits, found.n_positive),
        n_positive=found.n_positive,
        n_negative=found.n_negative,
        certified=False,
        reason="chosen and measured on the same calibration images",
    )


def describe(policy: PolicyConfig) -> str:
    """What a policy asks for, in words."""
    if policy.sensitivity is not None:
        return f"sensitivity at least {policy.sensitivity:g}, then most specificity"
    return f"least cost, a miss costing {policy.cost_ratio:g} false alarms"


def clopper_pearson(hits: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion, in [0, 1].

    Source: Clopper & Pearson, Biometrika 26 (1934).
    """
    interval = binomtest(hits, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)
