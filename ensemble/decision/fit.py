"""From one pool of members to its decision: a calibrator, and operating points on top of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.calibration.calibrators import Calibrator
from ensemble.calibration.choose import choose_calibrator
from ensemble.calibration.results import CalibratorWorth
from ensemble.decision.choose import choose_points
from ensemble.decision.points import OperatingPoint, PointConfig
from search.data.splits import assign_groups
from search.errors import StudyError

Probs = NDArray[np.floating]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Decided:
    """How a pool's probabilities become decisions.

    Attributes:
        calibrator_worth: of every calibrator that was tried.
        operating_points: in the order that was asked for; none without a positive class.
        calibrated: the held-back cases' probabilities, (n_images, n_classes).
    """

    calibrator: Calibrator
    calibrator_worth: list[CalibratorWorth]
    operating_points: list[OperatingPoint]
    calibrated: Floats


def fit_decision(
    pooled: Probs,
    labels: Ints,
    groups: Ints,
    *,
    positive: int | None,
    points: Mapping[str, PointConfig],
    certifies: Bools | None = None,
    seed: int = 0,
) -> Decided:
    """Choose a calibrator of a pool, and its operating points, on held-back cases.

    Args:
        pooled: (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
        positive: class index that the points are about; None: no points.
        points: by name.
        certifies: (n_images,), see `certifying_half`; the calibrator is fitted where it is False,
            the points are chosen where it is True. None: all cases do both.

    Raises:
        StudyError: `certifies` leaves nothing to calibrate or nothing to certify on.
    """
    fits = np.ones(len(labels), np.bool_) if certifies is None else ~certifies
    judges = fits if certifies is None else certifies
    if not fits.any() or not judges.any():
        raise StudyError(
            "the calibration slice has too few groups of linked images to both calibrate and "
            "certify on; raise splits.calibration and search again"
        )
    calibrator, worth = choose_calibrator(
        np.asarray(pooled)[fits], labels[fits], groups[fits], positive=positive, seed=seed
    )
    calibrated = calibrator.apply(pooled)
    if positive is None:
        return Decided(calibrator, worth, [], calibrated)
    chosen = choose_points(
        points,
        calibrated[judges, positive],
        labels[judges] == positive,
        groups[judges],
        seed=seed,
    )
    return Decided(calibrator, worth, chosen, calibrated)


def certifying_half(
    labels: Ints, groups: Ints, *, positive: int | None, n_classes: int, seed: int = 0
) -> Bools | None:
    """The held-back cases that certify and do not calibrate, (n_images,), where that is needed.

    A calibrator of two classes never changes the order of two images, so a threshold on it is one
    on the pool's own probability and the same cases may do both. One of more classes does change
    it: a case that fitted it is no longer a fresh one.

    Args:
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,), and are never divided.

    Returns:
        About half of each class; None where all cases may do both: two classes, no positive one.
    """
    if n_classes == 2 or positive is None:
        return None
    half: Bools = assign_groups(labels, groups, (0.5, 0.5), seed=seed) == 1
    return half
