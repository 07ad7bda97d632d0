"""What acting on the probability is worth: net benefit by threshold probability."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ensemble.evaluation.bootstrap import REPLICATES, Groups, estimate, replicate
from ensemble.evaluation.results import DecisionCurve

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLDS = tuple(hundredths / 100 for hundredths in range(1, 100, 2))


def decision_curve(
    score: NDArray[np.floating],
    is_positive: Bools,
    groups: Groups,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    replicates: int = REPLICATES,
    seed: int = 0,
    threads: int = 2,
) -> DecisionCurve:
    """Net benefit per image, in true positives, with intervals from the grouped bootstrap.

    At a threshold t: (true positives - false positives * t / (1 - t)) / images; who acts at t
    holds a missed positive to be (1 - t) / t times as bad as a false alarm.

    Args:
        score: probability of the positive class, (n_images,), in [0, 1].
        is_positive: (n_images,).
        groups: as in ensemble.evaluation.bootstrap.bootstrap; so are replicates, seed, threads.
        thresholds: increasing, above 0 and below 1; positive where the score reaches one.

    Raises:
        ValueError: thresholds that are not so, or scores, outcomes and groups that differ in
            number.

    Source: Vickers & Elkin, "Decision curve analysis", Medical Decision Making 2006.
    """
    steps = np.asarray(thresholds, np.float64)
    if len(steps) == 0 or steps[0] <= 0 or steps[-1] >= 1 or (np.diff(steps) <= 0).any():
        raise ValueError(f"thresholds must increase from above 0 to below 1, they are {thresholds}")
    if not len(score) == len(is_positive) == len(groups) > 0:
        raise ValueError(
            f"one outcome and group a score: {len(score)}, {len(is_positive)}, {len(groups)}"
        )
    odds = (steps / (1 - steps))[:, None]
    gains = _gains(np.asarray(score, np.float64), is_positive, steps)

    def net_benefit(counts: Floats) -> Floats:
        found: Floats = _net(gains, counts, odds)
        return found

    value = net_benefit(np.ones((1, len(score))))[:, 0]
    draws = replicate(net_benefit, groups, replicates=replicates, seed=seed, threads=threads)
    share = float(np.mean(is_positive))
    return DecisionCurve(
        thresholds=steps.tolist(),
        bundle=[estimate(float(v), d) for v, d in zip(value, draws, strict=True)],
        treat_all=(share - (1 - share) * odds[:, 0]).tolist(),
    )


def _gains(score: Floats, is_positive: Bools, steps: Floats) -> csr_array:
    """Sums of weights: negatives, then positives, by how many thresholds their score reaches."""
    row = np.searchsorted(steps, score, side="right") + is_positive * (len(steps) + 1)
    shape = (2 * len(steps) + 2, len(score))
    return csr_array((np.ones(len(score)), (row, np.arange(len(score)))), shape=shape)


def _net(gains: csr_array, counts: Floats, odds: Floats) -> Floats:
    reached = (gains @ counts.T).reshape(2, len(odds) + 1, -1)
    # A score that reaches a threshold reaches all below it: summed from the top down.
    called = np.cumsum(reached[:, ::-1], axis=1)[:, -2::-1]
    net: Floats = (called[1] - called[0] * odds) / counts.sum(axis=1)
    return net
