"""Exact intervals of counted rates."""

import math

from scipy.stats import beta


def clopper_pearson(hits: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion, in [0, 1]; (0, 1) where nothing was counted.

    Counts need not be whole: a design effect divides them.

    Source: Clopper & Pearson, Biometrika 26 (1934).
    """
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def hits_needed(rate: float, confidence: float) -> int:
    """Cases without one miss from which the lower bound of the rate reaches `rate`.

    72 for 0.95 at 95%: the bound is ((1 - confidence) / 2) ** (1 / n).
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(rate))
