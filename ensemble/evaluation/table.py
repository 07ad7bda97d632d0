"""The whole metric table of one set of images, for any number of weightings of the images.

Everything that does not depend on the weights is prepared once: sums over images become one
sparse product, curves over thresholds two cumulative sums over a Ladder. A bootstrap replicate
is a column of whole weights: how often each image was drawn.
"""

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ensemble.evaluation.ladder import Ladder, curve_areas
from ensemble.evaluation.selective import risk_areas
from ensemble.evaluation.slope import Regression
from ensemble.evaluation.smooth import CELLS, cells, smooth_ece
from search.training.metrics import ECE_BINS, NLL_FLOOR, ece

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Sum = tuple[Ints, Floats, int]  # row of each image, what it adds there, how many rows

MEANS = ("nll", "brier", "accuracy", "balanced_accuracy", "ece")
RATES = ("precision", "sensitivity", "specificity", "f1")
AREAS = ("auroc", "auprc", "partial_auroc")
OF_POSITIVE = ("specificity_at_95",)
RISKS = ("aurc", "augrc")
CALIBRATION = ("calibration_slope", "calibration_intercept", "smooth_ece")
AT_THRESHOLD = ("sensitivity_at_threshold", "specificity_at_threshold")


class MetricTable:
    """Probabilities and labels, ready for `values`.

    The metrics of search.training.metrics.evaluate_probs by its definitions, and:

    - aurc, augrc: see ensemble/evaluation/selective.py;
    - calibration_slope, calibration_intercept, smooth_ece: of the positive class's probability;
      without `positive`, of the most probable class's probability against being right;
    - specificity_at_95, with `positive`: most specificity among the thresholds that reach a
      sensitivity of 0.95 on these very images;
    - sensitivity_at_threshold, specificity_at_threshold, with `positive` and `threshold`.

    Args:
        probs: (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        positive: class index that the metrics are about; without it they are macro averages
            over the classes they are defined for.
        threshold: positive where the probability of `positive` reaches it.
        only: names of metrics; all where absent.

    Raises:
        ValueError: probs, labels or positive that evaluate_probs refuses; a threshold without
            positive; an unknown name in `only`.
    """

    def __init__(
        self,
        probs: NDArray[np.floating],
        labels: Ints,
        *,
        positive: int | None = None,
        threshold: float | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        ece(probs, labels, positive=positive)  # for its checks
        p, y = np.asarray(probs, np.float64), np.asarray(labels, np.int64)
        self.n_images, self.n_classes = p.shape
        self.positive = positive
        self.names = _chosen(only, positive, threshold)
        decided = p.argmax(axis=1)
        confidence, outcome = p.max(axis=1), decided == y
        self._confidence = Ladder(confidence, ~outcome) if self._wants(RISKS) else None
        if positive is not None:
            confidence, outcome = p[:, positive], y == positive
        wants_curves = self._wants((*AREAS, *OF_POSITIVE))
        classes = range(self.n_classes) if positive is None else [positive]
        self._curves = [Ladder(p[:, k], y == k) for k in classes] if wants_curves else []
        wants_slope = self._wants(CALIBRATION[:2])
        self._regression = Regression(confidence, outcome) if wants_slope else None
        sums = _sums(p, y, decided) | _gaps(confidence, outcome)
        if positive is not None and threshold is not None:
            sums["held"] = _held(p[:, positive] >= threshold, y == positive)
        if not self._wants(("smooth_ece",)):
            del sums["cells"]
        self._sums, self._parts = _stacked(sums, self.n_images)

    def once(self) -> dict[str, float]:
        """Every metric with each image counted once."""
        return {name: float(v) for name, v in self.values(np.ones(self.n_images)).items()}

    def values(self, counts: NDArray[np.generic]) -> dict[str, Floats]:
        """Every metric, NaN where it is undefined.

        Args:
            counts: how often each image counts, whole, (n_images,) or (n_replicates, n_images);
                at least one image a replicate.

        Returns:
            By name, () or (n_replicates,).

        Raises:
            ValueError: counts of another number of images.
        """
        if counts.shape[-1] != self.n_images or counts.ndim not in (1, 2):
            raise ValueError(f"counts must end in {self.n_images} images, it is {counts.shape}")
        # Replicates side by side: the sparse products then run along the memory.
        weights = np.ascontiguousarray(np.atleast_2d(counts).T, np.float64)
        found = self._all(weights)
        return {name: found[name].reshape(counts.shape[:-1]) for name in self.names}

    def _all(self, weights: Floats) -> dict[str, Floats]:
        rows = self._sums @ weights
        sums = {name: rows[part] for name, part in self._parts.items()}
        n = sums["images"][0]
        found = {
            "nll": sums["nll"][0] / n,
            "brier": sums["brier"][0] / n,
            "accuracy": sums["hits"].sum(axis=0) / n,
            "ece": np.abs(sums["bins"]).sum(axis=0) / n,
        }
        found |= self._rates(sums, n)
        if self._curves:
            found |= self._areas(weights)
        if self._confidence is not None:
            found |= risk_areas(self._confidence, weights)
        if self._regression is not None:
            found["calibration_slope"] = self._regression.slope(weights)
            found["calibration_intercept"] = self._regression.intercept(weights)
        if "cells" in sums:
            found["smooth_ece"] = smooth_ece(sums["cells"] / n)
        return found

    def _rates(self, sums: dict[str, Floats], n: Floats) -> dict[str, Floats]:
        tp, truth, decided = sums["hits"], sums["truth"], sums["decided"]
        sensitivity = _ratio(tp, truth)
        rates = {
            "precision": _ratio(tp, decided),
            "sensitivity": sensitivity,
            "specificity": _ratio(n - truth - decided + tp, n - truth),
            "f1": _ratio(2 * tp, truth + decided),
        }
        found = {name: self._of_interest(values) for name, values in rates.items()}
        several = np.count_nonzero(truth, axis=0) > 1
        found["balanced_accuracy"] = np.where(several, _mean_defined(sensitivity), math.nan)
        if "held" in sums and self.positive is not None:
            positives = truth[self.positive]
            found["sensitivity_at_threshold"] = _ratio(sums["held"][1], positives)
            found["specificity_at_threshold"] = _ratio(sums["held"][0], n - positives)
        return found

    def _areas(self, weights: Floats) -> dict[str, Floats]:
        areas = [curve_areas(ladder, weights) for ladder in self._curves]
        return {name: _mean_defined(np.stack([area[name] for area in areas])) for name in areas[0]}

    def _of_interest(self, values: Floats) -> Floats:
        return _mean_defined(values) if self.positive is None else values[self.positive]

    def _wants(self, names: Collection[str]) -> bool:
        return any(name in names for name in self.names)


def _chosen(
    only: Collection[str] | None, positive: int | None, threshold: float | None
) -> tuple[str, ...]:
    known: tuple[str, ...] = (*MEANS, *RATES, *AREAS, *RISKS, *CALIBRATION)
    if positive is not None:
        known += OF_POSITIVE
    if threshold is not None:
        if positive is None:
            raise ValueError(f"the threshold {threshold} needs a positive class")
        known += AT_THRESHOLD
    if only is None:
        return known
    for name in only:
        if name not in known:
            raise ValueError(f"no metric {name!r} here; there are {', '.join(known)}")
    return tuple(name for name in known if name in only)


def _sums(p: Floats, y: Ints, decided: Ints) -> dict[str, Sum]:
    n, k = p.shape
    one, first = np.ones(n), np.zeros(n, np.int64)
    truth = y[:, None] == np.arange(k)
    return {
        "images": (first, one, 1),
        "nll": (first, -np.log(np.clip(p[np.arange(n), y], NLL_FLOOR, 1)), 1),
        "brier": (first, ((p - truth) ** 2).sum(axis=1), 1),
        "truth": (y, one, k),
        "decided": (decided, one, k),
        "hits": (y, (decided == y).astype(np.float64), k),
    }


def _gaps(confidence: Floats, outcome: Bools) -> dict[str, Sum]:
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gap = outcome - confidence
    return {"bins": (bins, gap, ECE_BINS), "cells": (cells(confidence), gap, CELLS)}


def _held(called: Bools, is_positive: Bools) -> Sum:
    """Negatives called negative in row 0, positives called positive in row 1."""
    return is_positive.astype(np.int64), (called == is_positive).astype(np.float64), 2


def _stacked(sums: dict[str, Sum], n_images: int) -> tuple[csr_array, dict[str, slice]]:
    """One matrix that makes all sums of (n_images, n_replicates) weights, and its parts."""
    ends = np.cumsum([size for _, _, size in sums.values()])
    parts = {
        name: slice(int(end) - size, int(end))
        for (name, (_, _, size)), end in zip(sums.items(), ends, strict=True)
    }
    rows = np.concatenate([row + parts[name].start for name, (row, _, _) in sums.items()])
    values = np.concatenate([value for _, value, _ in sums.values()])
    columns = np.tile(np.arange(n_images), len(sums))
    matrix = csr_array((values, (rows, columns)), shape=(int(ends[-1]), n_images))
    matrix.eliminate_zeros()
    return matrix, parts


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, math.nan), where=whole > 0)
    return ratio


def _mean_defined(values: Floats) -> Floats:
    """Over the first axis, of what is not NaN."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))
