"""Thresholds that come with a promise about unseen cases, or with the refusal to give one.

Why held-back cases promise anything: call positive what reaches the k-th smallest score of n
positives. Whatever the scores' distribution, if it is continuous the sensitivity on all positives
is Beta(n - k + 1, k): a nonparametric tolerance limit, after Wilks, "Determination of sample sizes
for setting tolerance limits", Annals of Mathematical Statistics 1941. Its lower quantiles are the
Clopper-Pearson bounds for k - 1 misses. Ties add sensitivity, and so does a threshold that lies
lower. A calibrator that never swaps two scores keeps the promise, even one fitted on these very
cases: what reached the k-th positive before still reaches it. One that may swap two images, as
those of several classes do, is covered only where it was fitted on others.

All of this takes cases that are independent and drawn as the unseen ones will be.
"""

import math
from bisect import bisect_left
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ensemble.decision.intervals import clopper_pearson, hits_needed
from search.params import Config

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ROUNDING = 1e-9  # 0.05 * 20 - 1 may come out just below 0


class Certificate(Config):
    """A threshold that keeps a promise, or why there is none."""

    threshold: float | None = Field(description="positive where the score reaches it")
    misses: int = Field(description="positives below it; for a specificity, negatives not below")
    n_positive: int
    n_negative: int
    reason: str = Field(description="what is promised, or why nothing is")


def certified_threshold(
    score: Floats, is_positive: Bools, *, rate: float, confidence: float
) -> Certificate:
    """The highest threshold whose sensitivity is at least `rate`, with `confidence`.

    A fixed sequence of tests, from the lowest threshold upwards over the positives' scores: each
    passes if the Clopper-Pearson interval at `confidence` begins at `rate` or above, and the first
    failure ends it, so that many tests cost no confidence. The interval is two-sided: the promise
    itself is broken with a chance of at most (1 - confidence) / 2. The threshold lies midway
    between the last positive that passed and the next lower score of any image.

    Args:
        score: (n_images,), in [0, 1]; one image of each group of linked ones.
        is_positive: (n_images,).
        rate: in [0, 1].
        confidence: in (0, 1); of the two-sided interval.

    Source: Bauer, "Multiple testing in clinical trials", Statistics in Medicine 1991 (the fixed
    sequence); the module's docstring (why order statistics hold).
    """
    positives = np.sort(score[is_positive])
    allowed = allowed_misses(len(positives), rate, confidence)
    if allowed < 0:
        return _certificate(
            is_positive, None, 0, _refusal("positive", len(positives), rate, confidence)
        )
    level = float(positives[allowed])
    misses = int(np.count_nonzero(positives < level))
    reason = _promise(
        "sensitivity", f"{misses} of {len(positives)} positives missed", rate, confidence
    )
    return _certificate(is_positive, just_below(score, level), misses, reason)


def certified_specificity(
    score: Floats, is_positive: Bools, *, rate: float, confidence: float
) -> Certificate:
    """The lowest threshold whose specificity is at least `rate`, with `confidence`.

    `certified_threshold` mirrored: from the highest threshold downwards over the negatives'
    scores, and midway between the last negative that passed and the next higher score.
    """
    negatives = np.sort(score[~is_positive])[::-1]
    allowed = allowed_misses(len(negatives), rate, confidence)
    if allowed < 0:
        return _certificate(
            is_positive, None, 0, _refusal("negative", len(negatives), rate, confidence)
        )
    level = float(negatives[allowed])
    if level >= 1:  # a score of 1 is never called negative
        reason = f"not certifiable: {np.count_nonzero(negatives >= 1)} negatives have a score of 1"
        return _certificate(is_positive, None, 0, reason)
    misses = int(np.count_nonzero(negatives > level))
    reason = _promise(
        "specificity", f"{misses} of {len(negatives)} negatives called positive", rate, confidence
    )
    return _certificate(is_positive, just_above(score, level), misses, reason)


def conformal_threshold(score: Floats, is_positive: Bools, *, rate: float) -> Certificate:
    """The highest threshold whose expected false-negative rate is at most `rate`.

    That is where n / (n + 1) * (share missed of n positives) + 1 / (n + 1) <= rate. The mean is
    over draws of the held-back cases: of one draw's threshold it says less than
    `certified_threshold`, and it needs fewer positives.

    Args:
        score: (n_images,), in [0, 1]; one image of each group of linked ones.
        is_positive: (n_images,).
        rate: in [0, 1].

    Source: Angelopoulos et al., "Conformal risk control", ICLR 2024.
    """
    positives = np.sort(score[is_positive])
    n = len(positives)
    allowed = min(math.floor(rate * (n + 1) - 1 + ROUNDING), n - 1)
    if allowed < 0:
        return _certificate(is_positive, None, 0, _conformal_refusal(n, rate))
    level = float(positives[allowed])
    misses = int(np.count_nonzero(positives < level))
    reason = (
        f"conformal risk control on {n} positives, {misses} of them missed: "
        "holds on average over draws of the held-back cases, not with a confidence"
    )
    return _certificate(is_positive, just_below(score, level), misses, reason)


@lru_cache(maxsize=1024)
def allowed_misses(n: int, rate: float, confidence: float) -> int:
    """Most misses among n cases with which every test up to there passes; -1 where none does.

    The bound falls with each miss, so the first failure of the sequence is found by bisection.
    """

    def fails(misses: int) -> bool:
        low, _ = clopper_pearson(n - misses, n, confidence=confidence)
        return low < rate - ROUNDING

    return bisect_left(range(n), True, key=fails) - 1


def just_below(score: Floats, level: float) -> float:
    """Midway between a score and the next lower one of any image (below all: 0)."""
    below = float(np.max(score, initial=0, where=score < level))
    middle = (level + below) / 2
    # Between two neighbouring floats the middle rounds to one of them, maybe the wrong one.
    return middle if middle > below else level


def just_above(score: Floats, level: float) -> float:
    """Midway between a score, below 1, and the next higher one of any image (above all: 1)."""
    above = float(np.min(score, initial=1, where=score > level))
    middle = (level + above) / 2
    return middle if middle > level else above


def _refusal(kind: str, n: int, rate: float, confidence: float) -> str:
    if rate >= 1:
        return f"not certifiable: no number of {kind}s proves a rate of 1"
    needed = hits_needed(rate, confidence) if rate > 0 else 1
    symbol, error = ("n₊", "a miss") if kind == "positive" else ("n₋", "a false alarm")
    return f"not certifiable with {symbol} = {n}: {needed} {kind}s without {error} are needed"


def _conformal_refusal(n: int, rate: float) -> str:
    if rate <= 0:
        return "not certifiable: no number of positives proves a rate of 0"
    needed = max(math.ceil(1 / rate - 1 - ROUNDING), 1)
    return f"not certifiable with n₊ = {n}: {needed} positives are needed"


def _promise(name: str, counted: str, rate: float, confidence: float) -> str:
    return f"{counted}: the exact {100 * confidence:g}% interval of the {name} is above {rate:g}"


def _certificate(
    is_positive: Bools, threshold: float | None, misses: int, reason: str
) -> Certificate:
    n_positive = int(np.count_nonzero(is_positive))
    return Certificate(
        threshold=threshold,
        misses=misses,
        n_positive=n_positive,
        n_negative=len(is_positive) - n_positive,
        reason=reason,
    )
