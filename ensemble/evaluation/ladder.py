"""Images ranked by a score, so that a curve over all thresholds costs two sums per weighting.

Sorting and finding ties is done once. Equal scores share a rung, and neighbouring rungs without
an event (a positive image, a wrong decision) are one: there no curve turns, so no area changes.
With nine classes a curve then has two rungs for each image of the class, not one for each image.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from search.training.metrics import HIGH_SENSITIVITY

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SCREENING = 0.95  # the sensitivity that specificity_at_95 is asked for


class Ladder:
    """Rungs from the highest score down; `counts` is (n_images, n_replicates), whole numbers."""

    def __init__(self, score: Floats, is_event: Bools) -> None:
        rung, n_rungs = _rungs(score, is_event)
        every, events = np.arange(len(score)), np.flatnonzero(is_event)
        self._images = _summing(rung, every, (n_rungs, len(score)))
        self._events = _summing(rung[events], events, (n_rungs, len(score)))

    def climb(self, counts: Floats) -> tuple[Floats, Floats]:
        """Images and events on each rung, both (n_rungs, n_replicates)."""
        return self._images @ counts, self._events @ counts


def _rungs(score: Floats, is_event: Bools) -> tuple[Ints, int]:
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    level = np.append(0, np.cumsum(ranked[1:] != ranked[:-1]))
    has_event = np.bincount(level, weights=is_event[order]) > 0
    starts = has_event | np.append(True, has_event[:-1])  # plain after plain starts nothing
    rung = np.empty(len(score), np.int64)
    rung[order] = (np.cumsum(starts) - 1)[level]
    return rung, int(np.count_nonzero(starts))


def _summing(rows: Ints, columns: Ints, shape: tuple[int, int]) -> csr_array:
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def curve_areas(ladder: Ladder, counts: Floats) -> dict[str, Floats]:
    """auroc, auprc, partial_auroc and specificity_at_95, (n_replicates,) each.

    The first three as search.training.metrics defines them. The last is the most specificity
    among the thresholds that reach a sensitivity of 0.95. NaN where positives or negatives are
    absent.
    """
    images, step = ladder.climb(counts)
    width = images - step
    tp, fp = np.cumsum(step, axis=0), np.cumsum(width, axis=0)
    n_positive, n_negative = tp[-1], fp[-1]
    undefined = (n_positive == 0) | (n_negative == 0)
    # Where a curve is undefined, anything but 0 to divide by.
    p, n = np.maximum(n_positive, 1), np.maximum(n_negative, 1)
    called = np.maximum(tp + fp, 1)  # nothing is called positive: tp is 0, too
    areas = {
        "auroc": np.sum(width * (2 * tp - step), axis=0) / (2 * p * n),
        "auprc": np.sum(step * tp / called, axis=0) / p,
        "partial_auroc": _area_above(HIGH_SENSITIVITY, tp / p, width / n),
        "specificity_at_95": 1 - _false_alarms(tp, fp, p) / n,
    }
    return {name: np.where(undefined, math.nan, area) for name, area in areas.items()}


def _area_above(floor: float, tpr: Floats, width: Floats) -> Floats:
    height = np.maximum(tpr - floor, 0)
    rise, rise_above = np.diff(tpr, axis=0, prepend=0), np.diff(height, axis=0, prepend=0)
    # Of a piece that crosses the floor, only the share of its width where it is above counts.
    share = np.divide(rise_above, rise, out=np.ones_like(rise), where=rise > 0)
    area: Floats = np.sum(width * share * (2 * height - rise_above), axis=0) / 2
    return area


def _false_alarms(tp: Floats, fp: Floats, n_positive: Floats) -> Floats:
    # Whole images are compared, as in scan_thresholds: 0.95 * 20 asks for 19.
    wanted = np.ceil(SCREENING * n_positive - 1e-9)
    first = np.argmax(tp >= wanted, axis=0)
    alarms: Floats = np.take_along_axis(fp, first[None], axis=0)[0]
    return alarms
